"What a reader needs to know in order to trust a figure, or to make it again."
import os
import platform
import subprocess
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def hardware() -> str:
    import torch
    if torch.cuda.is_available(): return f"one {torch.cuda.get_device_name()}"
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    return f"{len(os.sched_getaffinity(0))} cores of {model}, no GPU"


def origin(command: str, seed: int, *packages: str) -> dict:
    "Command, commit, date, hardware, versions and seed, for a result file."
    git = lambda *words: subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return dict(command=command, commit=git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "ddpm_lit") else ""), date=date.today().isoformat(),
                hardware=hardware(), seed=seed, versions={"python": platform.python_version()} | {name: version(name) for name in ("ddpm_lit", "torch", "numpy", *packages)})
