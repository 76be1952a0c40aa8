"""MNIST in minutes on one GPU: `python benchmarks/mnist_gpu.py --data DIR --out DIR`.

Trains a class-conditional network for `--seconds`, then measures it: 60,000 samples by
ten steps of the solver, what a classifier learns from them alone, 10,000 samples by 50
steps of DDIM and the report on them, bits per dimension, pictures. The whole ends after
`--total` seconds: what does not fit is left out, with a line that says so.

The number of steps is planned from the speed of the first ones, and planned anew on the
way, so that the learning rate has reached zero when the time is over. The weights are
kept in half precision, and everything is measured with what was kept.

Leaves in `--out`, after each part: mnist-cuda.json (mnist-cpu.json without a GPU), the
run as run.tar.gz, and the pictures."""

import argparse
import copy
import json
import math
import platform
import re
import shlex
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import mnist
import torch
from origin import origin
from timing import DEVICE, Clock, attempt, compiling, now

from ddpm_lit import DDIM, Bound, DPMSolver, ImageData, Run, RunFacts, TrainConfig
from ddpm_lit import Trainer
from ddpm_lit import TrainRecord, UNet, UNetConfig, V, classifier_accuracy, bits_per_dim
from ddpm_lit import DrawConfig, cosine_schedule, draw_pixels, load_images
from ddpm_lit import load_pretrained, optimized
from ddpm_lit.report import table

# 2.30 million parameters, 4.6 MB in half precision. Widths that are multiples of 32
# suit the tensor cores. The parameters go into three blocks a level in place of one,
# and not into width: the features of the first level are what is moved most.
NETWORK = UNetConfig(
    image_size=28,
    in_channels=1,
    channels=32,
    multipliers=(1, 2, 2),
    blocks=3,
    attention=(7,),
    dropout=0.0,
    num_classes=10,
    conditioning="scale_shift",
)
TINY = replace(NETWORK, channels=8, blocks=1)
MODE = "reduce-overhead"  # of the compiler; "default" where the trainer has no other
NOISE = dict(schedule="cosine", T=1000, beta_start=None, beta_end=None)
TRAIN = dict(
    warmup=500,
    lr_decay="cosine",
    adam_beta2=0.99,
    weighting="min-snr",
    label_drop=0.1,
    sample_every=0,
)
MANY = 10**7  # steps, before their number is known
RATE, RATE_STEPS = 2e-3, 12_000  # the rate that suits so many steps; less for more
HORIZON = 25  # the average forgets in a 25th of the run
PLANS = (0.2, 0.5, 0.8, 0.92)  # shares of the time at which the rest is planned anew
MARGIN = 0.99  # of the steps that would fit
BITS = 1000  # digits for bits per dimension at a time
GOALS = dict(score=0.994, agreement=0.99, ratio=1.3)


class Work(mnist.Work):
    "What benchmarks/mnist.py does, of a run that was trained here."

    def __init__(self, args: argparse.Namespace):
        super().__init__(args)
        self.pictures = args.out

    @cache
    def split(self, name: str) -> ImageData:
        data = load_images("mnist", self.args.data, split=name)
        return data[: self.args.digits] if self.args.digits else data

    @cache
    def main(self) -> Run:
        return load_pretrained(self.folder / "run")

    def quick(self, run: Run) -> Run:
        return self._quick(run, self.args.compile)

    @cache  # so that it is compiled once
    def _quick(self, run: Run, compiled: bool) -> Run:
        return optimized(run, "bf16" if DEVICE == "cuda" else "fp32", compiled, DEVICE)


# %% Training by the clock


def planned(config: TrainConfig, steps: int) -> TrainConfig:
    "The configuration for so many steps: the rate, and how long the average remembers."
    lr = RATE * min(1.0, (RATE_STEPS / steps) ** 0.5)
    decay = min(max(1 - HORIZON / steps, 0.5), 0.9999)
    return replace(config, steps=steps, lr=lr, ema_decay=decay)


@dataclass
class Session:
    "A training, what it said, and when it ends."

    trainer: Trainer
    folder: Path
    seconds: float
    every: int = 100  # steps from one look to the next
    begun: float = 0.0
    pace: float = 0.0  # seconds of a step
    log: list[dict] = field(default_factory=list)
    unread: list[TrainRecord] = field(default_factory=list)

    def run(self) -> None:
        "Train until the time is over; the network is compiled already."
        self.begun = now()
        first = self.trainer.step
        self._advance(2 * self.every, self.begun + self.seconds / 10)
        self.pace = (now() - self.begun) / (self.trainer.step - first)
        for share in (*PLANS, 1.0):
            self._plan()
            self._until(share)

    def first_steps(self) -> None:
        "Compile; the steps count, the time does not."
        started = now()
        self._advance(20, math.inf)
        print(f"first steps: {now() - started:.1f} s", flush=True)

    def _plan(self) -> None:
        "As many steps as fit into what is left, by the pace so far."
        left = max(self.begun + self.seconds - now(), 0)
        steps = self.trainer.step + max(1, int(MARGIN * left / self.pace))
        self.trainer.config = planned(self.trainer.config, steps)
        print(f"{self.pace * 1e3:.2f} ms a step: {steps} steps in all", flush=True)

    def _until(self, share: float) -> None:
        "Up to this share of the time, or the last step."
        end, first, started = (
            self.begun + share * self.seconds,
            self.trainer.step,
            now(),
        )
        late = self.begun + 1.02 * self.seconds
        for _ in self._steps():
            if time.perf_counter() > (end if share < 1 else late):
                break
        if self.trainer.step > first:
            self.pace = (now() - started) / (self.trainer.step - first)

    def _advance(self, steps: int, end: float) -> None:
        goal = self.trainer.step + steps
        for _ in self._steps():
            if self.trainer.step >= goal or time.perf_counter() > end:
                break

    def _steps(self) -> Iterator[None]:
        "Train; what is yielded stands behind a step that the device has done."
        for record in self.trainer.steps():
            self.unread.append(record)
            last = record.step == self.trainer.config.steps
            if record.step % 20 == 0 or last:
                self._look(record, write=record.step % self.every == 0 or last)
                yield

    def _look(self, record: TrainRecord, write: bool) -> None:
        "Wait for the device; write the mean loss since the last line of the log."
        record.loss_tensor.item()
        if not write:
            return
        loss = torch.stack([one.loss_tensor for one in self.unread]).mean().item()
        line = dict(step=record.step, loss=loss, lr=record.lr)
        line |= dict(images_per_second=round(record.images_per_second, 1))
        line |= dict(seconds=round(record.seconds, 3), waited=round(record.waited, 4))
        self.log.append(line)
        self.unread.clear()
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if len(self.log) % 20 == 0:
            print(line, flush=True)


def made(args: argparse.Namespace, data: ImageData, mode: str | bool) -> Trainer:
    torch.manual_seed(0)
    options = TRAIN | compiling(mode) | dict(batch_size=args.batch_size, seed=0)
    config = TrainConfig(steps=MANY, lr=RATE, **options)
    net, schedule = UNet(TINY if args.tiny else NETWORK), cosine_schedule()
    return Trainer(net, schedule, data, config, param=V, device=DEVICE)


def modes(args: argparse.Namespace) -> list[str | bool]:
    "Ways to compile, the next for where one fails."
    return [False] if args.mode == "no" else [args.mode, "default", False]


def trained(work: Work) -> dict:
    "The run, in `work.folder / 'run'`, and what it took."
    args, folder = work.args, work.folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    data, failed = work.split("train"), {}
    for mode in modes(args):

        def session() -> Session:
            every = 20 if args.tiny else 100
            one = Session(made(args, data, mode), folder, args.seconds, every)
            one.seconds = min(args.seconds, work.clock.left - args.reserve)
            one.first_steps()
            return one

        one = attempt(session)
        if isinstance(one, Session):
            break
        failed[str(mode)] = one["error"]
    else:
        raise RuntimeError(f"no way to train: {failed}")
    work.warm.wait()
    one.seconds = min(args.seconds, work.clock.left - args.reserve)
    one.run()
    saved(work, one.trainer)
    return _told(work, one) | dict(mode=str(mode), failed=failed)


def saved(work: Work, trainer: Trainer) -> None:
    "The averaged weights in half precision, as `Run.save` writes a run."
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    made = dict(device=device, processes=1, torch=torch.__version__)
    made["python"] = platform.python_version()
    facts = RunFacts(data="mnist", train=trainer.config, noise=NOISE, made=made)
    facts = replace(facts, step=trainer.step)
    half = copy.deepcopy(trainer.ema_model()).cpu().half()
    half = half.to(memory_format=torch.contiguous_format)
    folder = work.folder / "run"
    Run(half, trainer.schedule, V, (-1, 1), facts).save(folder)
    with tarfile.open(work.args.out / "run.tar.gz", "w:gz") as tar:
        tar.add(folder, "mnist")


def _told(work: Work, session: Session) -> dict:
    "As benchmarks/mnist.py tells of a run."
    found = work.told(work.folder / "run", "", work.main())
    del found["command"]
    weights = (work.folder / "run" / "weights.safetensors").stat().st_size
    found["loss_every"] *= session.every
    found |= dict(weights_bytes=weights, milliseconds_per_step=1e3 * session.pace)
    if DEVICE == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
        found["training_memory_MB"] = round(peak)
    end = session.log[-1]
    return found | dict(
        epochs=round(found["images"] / len(work.split("train")), 1),
        images_per_second=end["images_per_second"],
        waited=end["waited"],
    )


# %% What is measured


def headline(work: Work) -> dict:
    "10,000 samples by 50 steps of DDIM, and the report on them."
    found = mnist.headline(work)
    print(table(found), flush=True)
    return found


def pooled(parts: list[Bound]) -> dict:
    "One bound of the digits of several: means, and the standard error of the total."
    n = sum(part.n for part in parts)
    mean = lambda value: sum(part.n * value(part) for part in parts) / n
    total = mean(lambda part: part.total)
    inner = sum(part.n * (part.n - 1) * part.error**2 for part in parts)
    outer = sum(part.n * (part.total - total) ** 2 for part in parts)
    error = ((inner + outer) / (n * (n - 1))) ** 0.5
    names = ("prior", "kl", "reconstruction")
    found = dict(n=n, total=total, error=error)
    found |= {name: mean(lambda part: getattr(part, name)) for name in names}
    curve = mean(lambda part: part.curve).tolist()
    return found | dict(levels=256, curve=[float(f"{x:.4g}") for x in curve])


def bits(work: Work) -> dict:
    "Bits per dimension of held-out digits: a thousand at a time, as many as fit."
    test, size = work.split("test"), work.args.bits_at_once
    parts: list[Bound] = []
    took = 0.0
    while len(parts) * size < len(test):
        if parts and work.clock.left < 1.2 * took + 2:
            break
        some, started = test[len(parts) * size : (len(parts) + 1) * size], now()
        options = dict(y=some.labels, batch=size, device=DEVICE, seed=len(parts))
        found = bits_per_dim(work.main(), some.float(), some.levels, **options)
        took = now() - started
        parts.append(found)
        print(f"{found}, {took:.1f} s", flush=True)
    return pooled(parts)


def real(work: Work) -> dict:
    "What the same classifier learns from the training digits, trained here."
    return learned(work, work.split("train"), 0)


def learned(work: Work, data: ImageData, seed: int) -> dict:
    options = dict(epochs=mnist.JUDGE_EPOCHS, seed=seed, device=DEVICE)
    return dict(accuracy=classifier_accuracy(data, work.split("test"), **options))


def again(work: Work) -> dict:
    "Both classifiers from other seeds: how much chance there is in the figures."
    samples = work.samples("dpm10", work.main(), DPMSolver(10), work.args.many)
    rows: list[dict[str, float]] = []
    for seed in (1, 2):
        if rows and work.clock.left < 60:
            break
        sets = dict(samples=samples, real=work.split("train"))
        row = {name: learned(work, data, seed) for name, data in sets.items()}
        rows.append({name: found["accuracy"] for name, found in row.items()})
        print(rows[-1], flush=True)
    return dict(seeds=rows)


def pictures(work: Work) -> dict:
    "All pictures of benchmarks/mnist.py; one that fails does not keep the others."
    return {
        name: attempt(lambda: make(work, work.pictures / f"{name}.png"))
        for name, make in mnist.PICTURES.items()
    }


def guidance(work: Work) -> dict:
    "What exaggerating the class does; with twice the batch, so not compiled again."
    work.args.compile = False
    return mnist.guidance(work)


# Name, seconds that must be left on a GPU, how. Those before bits leave it 30 seconds.
PARTS: list[tuple[str, float, Callable[[Work], dict]]] = [
    ("main_run", 60, trained),
    ("score", 25, mnist.score),
    ("headline", 20, headline),
    ("pictures", 4, pictures),
    ("real", 8, real),
    ("guidance", 40, guidance),
    ("again", 65, again),
    ("bits", 10, bits),  # last, with all the time that is left
]


# %% The run


class Warm:
    "A process that compiles the network that draws, while the one that learns is."

    def __init__(self, args: argparse.Namespace):
        self.process = None
        if args.compile and DEVICE == "cuda":
            command = [sys.executable, __file__, "--warm", "--compile"]
            given = ["--data", str(args.data), "--batch", str(args.batch)]
            self.process = subprocess.Popen([*command, *given])

    def wait(self, seconds: float = 60) -> None:
        "Until it is done; later it would disturb."
        if self.process is None:
            return
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def warm(args: argparse.Namespace) -> None:
    run = Run(UNet(NETWORK).eval(), cosine_schedule(), V, (-1, 1))
    labels = torch.randint(10, (args.batch,))
    quick = optimized(run, "bf16", True, DEVICE)
    config = DrawConfig(DDIM(2), labels=labels, batch=args.batch, device=DEVICE)
    draw_pixels(quick, config, args.batch)


def goals(found: dict[str, dict]) -> list[str]:
    "What was reached of the goals, in words."
    said = []
    if "samples" in found.get("score", {}):
        said.append(f"classifier on samples {found['score']['samples']:.4f}")
    if "accuracy" in found.get("real", {}):
        said.append(f"on real digits {found['real']['accuracy']:.4f}")
    if "distance" in found.get("headline", {}):
        head = found["headline"]
        said.append(f"as asked {head['agreement']:.4f}")
        ratio = head["distance"]["frechet"] / head["floor"]["frechet"]
        said.append(f"Fréchet {ratio:.2f} times the floor")
    if "total" in found.get("bits", {}):
        said.append(f"{found['bits']['total']:.3f} bits/dim of {found['bits']['n']}")
    return [*said, f"goals {GOALS}"]


def measured(work: Work) -> None:
    "Part after part; the result file after each."
    args = work.args
    given = re.sub(r" *--(out|work|data)[ =]\S+", "", shlex.join(sys.argv[1:]))
    command = f"python benchmarks/mnist_gpu.py --data DIR --out DIR {given}".strip()
    record, found, seconds = origin(command, 0, "torchmetrics"), {}, {}
    record |= dict(judge=work.judge()[1])
    for name, least, make in PARTS:
        started = now()

        def part() -> dict:
            work.clock.check(name, least if DEVICE == "cuda" else 0)
            return make(work)

        found[name] = attempt(part)
        seconds[name] = round(now() - started, 1)
        print(f"{name}: {seconds[name]} s, {work.clock.left:.0f} s left", flush=True)
        whole = record | dict(stages=found, part_seconds=seconds)
        path = args.out / f"mnist-{DEVICE}.json"
        path.write_text(json.dumps(whole) + "\n")
        if name == "main_run" and "error" in found[name]:
            break
    print(*goals(found), sep="\n", flush=True)


def words() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--data", type=Path, required=True, help="the folder above MNIST/raw")
    add("--out", type=Path, default=Path("."), help="folder of the results")
    add("--work", type=Path, help="folder for what is in between")
    add("--seconds", type=float, default=240, help="of training, without compilation")
    add("--total", type=float, default=410, help="seconds in which all must be done")
    add("--reserve", type=float, default=110, help="of them, for what is measured")
    add("--batch-size", type=int, default=512, help="of training")
    add("--mode", default=MODE, help="of the compiler, or no")
    add("--batch", type=int, default=2000, help="images drawn at a time")
    add("--n", type=int, default=10_000, help="samples for the report")
    add(
        "--many", type=int, default=60_000, help="samples that a classifier learns from"
    )
    add("--few", type=int, default=1000, help="samples for half an entry of a table")
    add("--bits-at-once", type=int, default=BITS)
    add("--digits", type=int, help="only so many of each split, for a rehearsal")
    add("--tiny", action="store_true", help="a tiny network, for a rehearsal")
    add("--compile", action="store_true", help="compile the networks that draw")
    add("--threads", type=int)
    add("--warm", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.bits, args.bf16 = 0, False  # as benchmarks/mnist.py has them
    return args


def main() -> None:
    args = words()
    warnings.filterwarnings("ignore")
    if args.warm:
        return warm(args)
    args.out.mkdir(parents=True, exist_ok=True)
    args.work = args.work or args.out / "work"
    work = Work(args)
    work.clock, work.warm = Clock.of(args.total), Warm(args)
    measured(work)


if __name__ == "__main__":
    main()
