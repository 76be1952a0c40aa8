"What a reader needs to know in order to trust a figure, or to make it again."

import os
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def hardware() -> str:
    "The accelerator or, without one, the processor."
    import torch

    if torch.cuda.is_available():
        return f"one {torch.cuda.get_device_name()}"
    model = next(
        (
            line.split(":")[1].strip()
            for line in open("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{len(os.sched_getaffinity(0))} cores of {model}, no GPU"


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()


def commit() -> str:
    "The commit, from DDPM_LIT_COMMIT where the code is a copy without its history."
    if given := os.environ.get("DDPM_LIT_COMMIT"):
        return given
    try:
        dirty = "-dirty" if _git("status", "--porcelain", "ddpm_lit") else ""
        return _git("rev-parse", "HEAD") + dirty
    except FileNotFoundError:  # no git on this machine
        return "unknown"


def _version(name: str) -> str:
    "The version of a package; ddpm_lit's own also where it is not installed."
    try:
        return version(name)
    except PackageNotFoundError:
        if name != "ddpm_lit":
            raise
        import ddpm_lit

        return ddpm_lit.__version__


def origin(
    command: str,
    seed: int,
    *packages: str,  # whose versions matter, beside torch and numpy
) -> dict:
    "Command, commit, date, hardware, versions and seed, for a result file."
    names = ("ddpm_lit", "torch", "numpy", *packages)
    versions = {"python": platform.python_version()}
    return dict(
        command=command,
        commit=commit(),
        date=date.today().isoformat(),
        hardware=hardware(),
        seed=seed,
        versions=versions | {name: _version(name) for name in names},
    )
