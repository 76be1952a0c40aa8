"""The first command of the README, timed, and its figures kept in results/: `python
benchmarks/digits.py`.

Writes results/digits.json (what was measured, and how it was made) and the run's
pictures in results/digits/."""

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from origin import ROOT, origin

PICTURES = ("loss.png", "samples_ddpm.png", "samples_ddim.png", "samples.gif")


def run() -> tuple[dict, Path]:
    "Run the command; its figures, and its run folder."
    folder = Path(tempfile.mkdtemp()) / "digits"
    started = time.perf_counter()
    subprocess.run(
        [shutil.which("ddpm-lit"), "train", "digits", "--out", str(folder)], check=True
    )
    seconds = time.perf_counter() - started
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    config = json.loads((folder / "config.json").read_text())
    return dict(
        seconds=round(seconds, 1),
        training_seconds=round(log[-1]["seconds"], 1),
        report=json.loads((folder / "report.json").read_text()),
        config={key: config[key] for key in ("unet", "train", "param", "clip")},
        loss=[round(line["loss"], 5) for line in log],
    ), folder


def main() -> None:
    measured, folder = run()
    (ROOT / "results" / "digits").mkdir(parents=True, exist_ok=True)
    record = (
        origin(
            "ddpm-lit train digits", measured["config"]["train"]["seed"], "scikit-learn"
        )
        | measured
    )
    (ROOT / "results" / "digits.json").write_text(json.dumps(record) + "\n")
    for name in PICTURES:
        shutil.copy(folder / name, ROOT / "results" / "digits" / name)
    shutil.copy(
        folder / "samples.gif", ROOT / "nbs" / "images" / "digits.gif"
    )  # the first page shows it, and a page cannot reach out of nbs/
    shutil.rmtree(folder.parent)


if __name__ == "__main__":
    main()
