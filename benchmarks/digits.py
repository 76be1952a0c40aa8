"""The first command of the README, timed, and its figures kept in results/: `python benchmarks/digits.py [flags of ddpm-lit train digits]`.

Writes results/digits.json (what was measured, and how it was made) and the run's pictures in results/digits/. With flags, the
run is a variation: it is added under its flags to results/digits_variations.json, and no picture is kept."""
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ("loss.png", "samples_ddpm.png", "samples_ddim.png", "samples.gif")


def origin(command: str, seed: int) -> dict:
    "What a reader needs to know in order to trust a figure, or to make it again."
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    return dict(command=command, commit=git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "ddpm_lit") else ""), date=date.today().isoformat(),
                hardware=f"{len(os.sched_getaffinity(0))} cores of {model}, no GPU", seed=seed,
                versions={"python": platform.python_version()} | {name: version(name) for name in ("ddpm_lit", "torch", "scikit-learn", "numpy")})


def run(flags: list[str]) -> tuple[dict, Path]:
    "Run the command; its figures, and its run folder."
    folder = Path(tempfile.mkdtemp()) / "digits"
    started = time.perf_counter()
    subprocess.run([shutil.which("ddpm-lit"), "train", "digits", "--out", str(folder), *flags], check=True)
    seconds = time.perf_counter() - started
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    config = json.loads((folder / "config.json").read_text())
    return dict(seconds=round(seconds, 1), training_seconds=round(log[-1]["seconds"], 1), report=json.loads((folder / "report.json").read_text()),
                config={key: config[key] for key in ("unet", "train", "param", "clip")}, loss=[round(line["loss"], 5) for line in log]), folder


def main(flags: list[str]) -> None:
    seed = int(flags[flags.index("--seed") + 1]) if "--seed" in flags else 0
    measured, folder = run(flags)
    record = origin(" ".join(["ddpm-lit train digits", *flags]), seed) | measured
    (ROOT / "results" / "digits").mkdir(parents=True, exist_ok=True)
    if not flags:
        (ROOT / "results" / "digits.json").write_text(json.dumps(record) + "\n")
        for name in PICTURES: shutil.copy(folder / name, ROOT / "results" / "digits" / name)
    else:
        path = ROOT / "results" / "digits_variations.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        runs = kept.get("runs", {}) | {" ".join(flags): {key: measured[key] for key in ("seconds", "report")}}
        path.write_text(json.dumps(origin("python benchmarks/digits.py FLAGS, FLAGS as under `runs`", 0) | {"runs": runs}, indent=1) + "\n")
    shutil.rmtree(folder.parent)


if __name__ == "__main__": main(sys.argv[1:])
