"""A long measurement in stages: each leaves its file in a work folder and is not done
twice, so that it can be stopped at any time and goes on when it is called again."""

import argparse
import json
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from origin import ROOT, origin

from ddpm_lit import Run, optimized
from ddpm_lit.runs import read_log
from ddpm_lit.storage import write_json


class Stages:
    """What the stages of one measurement share. `data` is its name, and that of its
    script and result file."""

    data: str

    def __init__(self, args: argparse.Namespace):
        self.args, self.folder = args, args.work
        self.folder.mkdir(parents=True, exist_ok=True)
        if args.threads:
            torch.set_num_threads(args.threads)

    @property
    def device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    def kept(self, name: str, make: Callable[[], dict]) -> dict:
        "What a stage found, and what it took; from its file if it is done."
        path = self.folder / f"{name}.json"
        if path.is_file():
            return json.loads(path.read_text())
        started = time.perf_counter()
        found = make()
        found |= dict(
            seconds=round(time.perf_counter() - started, 1),
            threads=torch.get_num_threads(),
            origin=origin(
                f"python benchmarks/{self.data}.py --only {name}", 0, "torchmetrics"
            ),
        )
        write_json(path, found)
        print(f"{name}: {found['seconds']} s", flush=True)
        return found

    def trained(self, name: str, flags: str = "", steps: int | None = None) -> Path:
        """A run folder whose training is finished, up to as many steps as planned or as
        given; begun or resumed if need be."""
        folder = self.folder / name
        done = (
            json.loads((folder / "config.json").read_text())
            if (folder / "config.json").is_file()
            else None
        )
        if done and done["step"] == (steps or done["train"]["steps"]):
            return folder
        words = (
            ["resume", str(folder), *(["--steps", str(steps)] if steps else [])]
            if done
            else ["train", self.data, "--out", str(folder), *flags.split()]
        )
        words += ["--data-dir", str(self.args.data)]
        if self.args.threads:
            words += ["--threads", str(self.args.threads)]
        child = subprocess.Popen([shutil.which("ddpm-lit"), *words])
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, child.args)
        write_json(folder / "memory.json", {"peak_MB": round(used.ru_maxrss / 1024)})
        return folder

    def told(self, folder: Path, command: str, run: Run) -> dict:
        """How a training went: what it was, what it took, and its loss, averaged over
        neighbouring steps."""
        log, config = read_log(folder), json.loads((folder / "config.json").read_text())
        every = max(1, len(log) // 400)
        loss = [
            statistics.mean(line["loss"] for line in log[i : i + every])
            for i in range(0, len(log), every)
        ]
        memory = (
            json.loads(path.read_text())["peak_MB"]
            if (path := folder / "memory.json").is_file()
            else None
        )
        return dict(
            command=command,
            training_memory_MB=memory,
            parameters=sum(p.numel() for p in run.model.parameters()),
            training_seconds=round(log[-1]["seconds"]),
            images=config["step"] * config["train"]["batch_size"],
            config={
                key: config[key] for key in ("unet", "train", "noise", "param", "made")
            },
            loss_every=every,
            loss=[round(x, 5) for x in loss],
        )

    def quick(self, run: Run) -> Run:
        return optimized(
            run,
            "bf16" if self.device == "cuda" or self.args.bf16 else "fp32",
            self.args.compile,
            self.device,
        )

    def write(self, names: list[str], **facts) -> dict:
        "The result file, of all stages that are done."
        found = {
            name: json.loads((self.folder / f"{name}.json").read_text())
            for name in names
            if (self.folder / f"{name}.json").is_file()
        }
        given = shlex.join(
            word
            for word in sys.argv[1:]
            if "/" not in word and word not in ("--data", "--work")
        )
        record = origin(
            f"python benchmarks/{self.data}.py --data DIR --work DIR {given}".strip(),
            0,
            "torchmetrics",
        )
        record |= facts | dict(
            peak_memory_MB=round(
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            ),
            stages=found,
        )
        (ROOT / "results" / f"{self.data}.json").write_text(json.dumps(record) + "\n")
        return found


def parser(about: str, stages: list[str]) -> argparse.ArgumentParser:
    "The flags that these scripts share."
    made = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--data",
        type=Path,
        required=True,
        help="the folder above MNIST/raw, celeba and so on",
    )
    made.add_argument(
        "--work",
        type=Path,
        required=True,
        help="where runs and the files of finished stages are",
    )
    made.add_argument(
        "--only",
        nargs="+",
        choices=stages,
        default=stages,
        metavar="STAGE",
        help=f"out of {', '.join(stages)}",
    )
    made.add_argument("--batch", type=int, default=100)
    made.add_argument("--threads", type=int)
    made.add_argument(
        "--bf16",
        action="store_true",
        help="compute with bfloat16 networks on a CPU too",
    )
    made.add_argument(
        "--compile", action="store_true", help="compile the networks that draw"
    )
    return made
