"""A training that is killed again and again: `python tests/crash.py KILLS STEPS SEED`
prints what came of it as JSON.

Each life is a copy of this process (os.fork) that goes on from the newest
checkpoint and saves another after every step; after a random time it is killed with
SIGKILL, three lives out of four while a file is being written. The last life may
finish. What it reaches must be what a training reaches that was never killed."""

import json
import os
import random
import signal
import sys
import tempfile
import time
import zlib
from pathlib import Path

# accelerate and dynamo are imported late otherwise, by every life anew
import accelerate  # noqa: F401
import torch
import torch._dynamo

from ddpm_lit import ImageData, TrainConfig, Trainer, UNet, UNetConfig, linear_schedule
from ddpm_lit.runs import append_log, checkpoints, read_checkpoint, read_log

torch.set_num_threads(1)
SCHEDULE = linear_schedule(20, 1e-3, 0.3)
DATA = ImageData(
    torch.randint(
        256,
        (30, 1, 4, 4),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.uint8,
    )
)


def train(folder: Path, steps: int, every: int) -> None:
    "Go on from what is there, or begin."
    torch.manual_seed(0)
    model, config = (
        UNet(UNetConfig(4, 1, 24, (1, 2), 1, (), dropout=0.1)),
        TrainConfig(
            steps=steps, batch_size=4, lr=1e-3, warmup=2, flip=True, precision="fp32"
        ),
    )
    trainer = (
        Trainer.restore(folder, model, SCHEDULE, DATA, config, device="cpu")
        if checkpoints(folder)
        else Trainer(model, SCHEDULE, DATA, config, device="cpu")
    )
    if trainer.step == 0:
        trainer.save(folder)
    for record in trainer.steps():
        append_log(folder, record)
        if record.step % every == 0:
            trainer.save(folder)
        (folder / "begun").touch()  # now the clock of its life starts


def live(folder: Path, steps: int, every: int = 1) -> int:
    "The number of a process that trains."
    if child := os.fork():
        return child
    train(folder, steps, every)
    os._exit(0)


def found(folder: Path) -> tuple[int, int]:
    "Step, and a checksum of all weights, averages and moments."
    checkpoint = read_checkpoint(folder)
    return checkpoint.step, zlib.crc32(
        b"".join(x.numpy().tobytes() for _, x in sorted(checkpoint.tensors.items()))
    )


def hold_in_save(child: int, folder: Path, delay: float) -> None:
    """Stop `child` (SIGSTOP) `delay` seconds after it began to write a file, or sooner
    where it writes faster than that."""
    while True:
        while not list(folder.glob("checkpoints/.*.part")):
            assert os.waitpid(child, os.WNOHANG) == (0, 0), (
                "it lived to its end: ask for more steps"
            )
            time.sleep(0.0005)
        time.sleep(delay)
        os.kill(child, signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1]), (
            "it lived to its end: ask for more steps"
        )
        if list(folder.glob("checkpoints/.*.part")):
            return
        os.kill(child, signal.SIGCONT)
        delay /= 2


def main(kills: int, steps: int, seed: int) -> dict:
    chance, folder, straight, reached, saving = (
        random.Random(seed),
        Path(tempfile.mkdtemp()),
        Path(tempfile.mkdtemp()),
        [],
        0,
    )
    for _ in range(kills):
        child = live(folder, steps)
        while not (folder / "begun").exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.2))
        if chance.random() < 0.75:
            hold_in_save(child, folder, chance.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, (
            "it lived to its end: ask for more steps"
        )
        saving += bool(list(folder.glob("checkpoints/.*.part")))
        (folder / "begun").unlink()
        reached.append(found(folder)[0])
    for process in (live(folder, steps), live(straight, steps, steps)):
        assert os.waitpid(process, 0)[1] == 0
    logged = [line["step"] for line in read_log(folder)]
    return dict(
        reached=reached,
        saving=saving,
        killed=found(folder),
        straight=found(straight),
        log_is_whole=logged == list(range(1, steps + 1)),
        left=len(list(folder.glob("checkpoints/*"))),
    )


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))
