"""Training beside diffusers and denoising-diffusion-pytorch: `python
benchmarks/training.py`.

One network, from the same weights, trained by this library's Trainer and in a loop with
the settings of diffusers' example for unconditional images (AdamW, DDPMScheduler,
EMAModel, accelerate, cosine rate, gradient clipped to 1, the loss read in each step);
its compiled form also has the settings that are fastest there, a fused AdamW and
EMAModel's `foreach`. Beside them denoising-diffusion-pytorch's network, of nearly as
many parameters, with the settings of its trainer.

Each trains in a process of its own, where it also compiles. Then they are timed by
turns, so that a busy machine slows them alike, while the others wait: a block is a
fixed number of steps, and the median of `--rounds` blocks is kept. The pictures are
random grey levels: the arithmetic is the same whatever they show. They are in memory
for everybody and reach the others as whole batches on the device, so what their loaders
cost is not in these figures; that is measured apart, from a folder. Checked in each
run: both networks have the same loss and gradient on one batch, and every contender
makes as many updates as it was asked for.

Writes training-cpu.json, or training-cuda.json where there is a GPU, after each
network, into the folder `--out`; where a goal is missed, with a profile."""

import argparse
import copy
import json
import re
import resource
import shlex
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from origin import ROOT, origin
from timing import (
    DEVICE,
    Clock,
    attempt,
    compiling,
    flops,
    matrix_rate,
    once,
    profiled,
)
from torch import Tensor, nn
from workers import Worker, held, serve, shared_words, started

from ddpm_lit import (
    EPS,
    ImageData,
    Run,
    TrainConfig,
    Trainer,
    TrainRecord,
    UNet,
    UNetConfig,
    ddpm_loss,
    linear_schedule,
    load_images,
    to_diffusers,
)
from ddpm_lit.images import to_float
from ddpm_lit.train import auto_precision
from ddpm_lit.configs import PRESETS

BATCH = {
    "cpu": {"mnist": 64, "cifar10": 8},
    "cuda": {"cifar10": 128, "celeba64": 64, "mnist": 128},
}[DEVICE]
SECONDS = {"cpu": 2.0, "cuda": 1.0}[DEVICE]  # of a block
DEADLINE = {"cpu": 1200.0, "cuda": 480.0}[DEVICE]
LEVELS = 256
GOALS = {"diffusers, bfloat16": 2.0, "diffusers, bfloat16, compiled": 1.15}
RATE_GOAL, WAIT_GOAL = 0.4, 0.02  # of the matrix rate, on celeba64; of the time


# %% What trains


@dataclass(frozen=True)
class Task:
    "What all of them train on."

    name: str
    batch_size: int

    @cached_property
    def config(self) -> UNetConfig:
        return PRESETS[self.name]

    @property
    def shape(self) -> tuple[int, int, int]:
        size = self.config.image_size
        return self.config.in_channels, size, size

    @cached_property
    def images(self) -> Tensor:
        "(2048, C, H, W) uint8."
        generator = torch.Generator().manual_seed(0)
        options = dict(generator=generator, dtype=torch.uint8)
        return torch.randint(0, LEVELS, (2048, *self.shape), **options)

    @cached_property
    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Ours and diffusers', with the same weights. None is left at zero, where a
        network starts and would hide what lies before it."""
        torch.manual_seed(0)
        ours = UNet(self.config)
        for p in ours.parameters():
            if not p.any():
                nn.init.normal_(p, std=0.02)
        with tempfile.TemporaryDirectory() as folder:
            to_diffusers(Run(ours, linear_schedule(), EPS, (-1, 1)), folder)
            options = dict(local_files_only=True)
            theirs = diffusers.UNet2DModel.from_pretrained(f"{folder}/unet", **options)
        return ours, theirs

    def batches(self) -> Iterator[Tensor]:
        "(B, C, H, W) float in [-1, 1] on the device, half of them mirrored."
        images, B = self.images.to(DEVICE), self.batch_size
        while True:
            rows = torch.randint(len(images), (B,), device=DEVICE)
            x = to_float(images[rows])
            mirrored = torch.rand(B, 1, 1, 1, device=DEVICE) < 0.5
            yield torch.where(mirrored, x.flip(-1), x)


@dataclass(frozen=True)
class Contender:
    "Somebody's training, a step at a time."

    step: Callable[[], Any]
    optimizer: torch.optim.Optimizer
    parameters: int
    precision: str

    @property
    def updates(self) -> int:
        return int(next(iter(self.optimizer.state.values()))["step"])


def size_of(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def ddpm_lit(
    task: Task,
    precision: str = "auto",
    compiled: bool | str = False,  # or the mode of the compiler
    data: Any = None,
) -> Contender:
    "This library's trainer."
    config = TrainConfig(
        steps=10**9,
        batch_size=task.batch_size,
        lr=1e-4,
        flip=True,
        precision=precision,
        **compiling(compiled),
    )
    net, data = copy.deepcopy(task.networks[0]), data or ImageData(task.images)
    trainer = Trainer(net, linear_schedule(), data, config, device=DEVICE)
    steps = trainer.steps()
    chosen = auto_precision(trainer.device) if precision == "auto" else precision
    size, said = size_of(trainer.model), "no" if chosen == "fp32" else chosen
    return Contender(lambda: next(steps), trainer.adam, size, said)


def accelerator(precision: str, compiled: bool = False) -> Accelerator:
    AcceleratorState._reset_state()  # it refuses a second precision in one process
    return Accelerator(
        mixed_precision=precision,
        cpu=DEVICE == "cpu",
        dynamo_backend="inductor" if compiled else "no",
    )


def _their_average(net: nn.Module, foreach: bool) -> EMAModel:
    return EMAModel(
        net.parameters(),
        decay=0.9999,
        use_ema_warmup=True,
        inv_gamma=1.0,
        power=0.75,
        foreach=foreach,
        model_cls=diffusers.UNet2DModel,
        model_config=net.config,
    )


def _their_adam(net: nn.Module, fused: bool) -> torch.optim.Optimizer:
    options = dict(lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    options |= dict(fused=True) if fused else {}
    return torch.optim.AdamW(net.parameters(), **options)


def of_diffusers(
    task: Task,
    precision: str = "no",
    compiled: bool = False,  # and with the settings that are fastest
    batches: Iterator[Tensor] | None = None,
) -> Contender:
    "The loop of diffusers' example, and its settings."
    torch.backends.cudnn.benchmark = compiled  # as our trainer has it on a GPU
    run, net = accelerator(precision, compiled), copy.deepcopy(task.networks[1])
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="linear"
    )
    size, ema = size_of(net), _their_average(net, compiled)
    adam = _their_adam(net, compiled)
    lengths = dict(num_warmup_steps=500, num_training_steps=10**6)
    rate = get_scheduler("cosine", adam, **lengths)
    net, optimizer, rate = run.prepare(net, adam, rate)
    ema.to(run.device)
    net.train()
    batches = batches or task.batches()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def step() -> float:
        clean = next(batches).to(run.device, dtype)
        noise = torch.randn_like(clean)
        times = torch.randint(0, 1000, (len(clean),), device=run.device)
        noisy = scheduler.add_noise(clean, noise, times)
        with run.accumulate(net):
            loss = F.mse_loss(net(noisy, times).sample.float(), noise.float())
            run.backward(loss)
            run.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
        ema.step(net.parameters())
        return loss.item()

    return Contender(step, adam, size, precision)


def lucidrains_network(config: UNetConfig) -> nn.Module:
    """Its U-Net on the same levels, of the width that brings it closest to our number
    of parameters."""
    from denoising_diffusion_pytorch import Unet

    def make(dim: int) -> nn.Module:
        shape = dict(dim_mults=config.multipliers, channels=config.in_channels)
        return Unet(dim=dim, dropout=config.dropout, **shape)

    with torch.device("meta"):
        want = size_of(UNet(config))
        sizes = {dim: size_of(make(dim)) for dim in range(16, 2 * config.channels, 4)}
    return make(min(sizes, key=lambda dim: abs(sizes[dim] - want)))


def of_lucidrains(task: Task, precision: str = "no") -> Contender:
    "denoising-diffusion-pytorch's network, with the settings of its trainer."
    from denoising_diffusion_pytorch import GaussianDiffusion
    from ema_pytorch import EMA

    run, net = accelerator(precision), lucidrains_network(task.config)
    size = size_of(net)
    model = GaussianDiffusion(net, image_size=task.config.image_size).to(DEVICE)
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99))
    ema = EMA(model, beta=0.995, update_every=10).to(DEVICE)
    model, optimizer = run.prepare(model, adam)
    batches = task.batches()

    def step() -> float:
        model.train()
        loss = model(next(batches) / 2 + 0.5)  # it takes [0, 1]
        value = loss.item()
        run.backward(loss)
        run.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update()
        return value

    return Contender(step, adam, size, precision)


CONTENDERS: dict[str, Callable[[Task], Contender]] = {
    "ddpm_lit": ddpm_lit,
    "ddpm_lit, compiled": lambda task: ddpm_lit(task, compiled=True),
    "ddpm_lit, CUDA graphs": lambda task: ddpm_lit(task, compiled="reduce-overhead"),
    "ddpm_lit, float32": lambda task: ddpm_lit(task, "fp32"),
    "diffusers, float32": of_diffusers,
    "diffusers, bfloat16": lambda task: of_diffusers(task, "bf16"),
    "diffusers, bfloat16, compiled": lambda task: of_diffusers(task, "bf16", True),
    "denoising-diffusion-pytorch, float32": of_lucidrains,
    "denoising-diffusion-pytorch, bfloat16": lambda task: of_lucidrains(task, "bf16"),
}
ON_A_GPU = [
    "ddpm_lit",
    "ddpm_lit, compiled",
    "diffusers, bfloat16",
    "diffusers, bfloat16, compiled",
]


def default_contenders(network: str) -> list[str]:
    """On a GPU, CUDA graphs only where launches take longest: it is one more
    compilation."""
    if DEVICE == "cpu":
        return [name for name in CONTENDERS if "CUDA" not in name]
    graphs = ["ddpm_lit, CUDA graphs"] if network == "mnist" else []
    return [*ON_A_GPU, *graphs]


# %% What is measured, in the workers


def same_work(task: Task) -> dict:
    """Loss and gradient's norm of both networks on one batch, in float32 and without
    dropout. ValueError where they differ."""
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    ours, theirs = (copy.deepcopy(net).to(DEVICE).eval() for net in task.networks)
    x0 = next(task.batches())
    t, eps = torch.randint(1, 1001, (len(x0),), device=DEVICE), torch.randn_like(x0)
    options = dict(num_train_timesteps=1000, beta_schedule="linear")
    noisy = diffusers.DDPMScheduler(**options).add_noise(x0, eps, t - 1)
    losses = [
        ddpm_loss(ours, linear_schedule(), x0, t, eps),
        F.mse_loss(theirs(noisy, t - 1).sample, eps),
    ]
    for loss in losses:
        loss.backward()
    values, norms = [loss.item() for loss in losses], []
    for net in (ours, theirs):
        parts = torch.stack([p.grad.norm() for p in net.parameters()])
        norms.append(parts.norm().item())
    if abs(values[0] - values[1]) > 1e-4 or abs(norms[0] / norms[1] - 1) > 1e-3:
        raise ValueError(f"the networks differ: losses {values}, gradients {norms}")
    return {
        "loss": [round(x, 6) for x in values],
        "gradient's norm": [round(x, 5) for x in norms],
    }


def peak_memory() -> int:  # MB
    if DEVICE == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def training(task: Task, name: str) -> dict[str, Callable[..., Any]]:
    "A contender after its first steps, and what it can be asked for."
    before = peak_memory()
    one, last = CONTENDERS[name](task), [None]

    def step() -> None:
        last[0] = one.step()

    first = once(step, 3)
    if DEVICE == "cuda":
        torch.cuda.empty_cache()  # the others need room in order to compile
        torch.cuda.reset_peak_memory_stats()

    def steps(n: int) -> dict:
        return dict(seconds=once(step, n), updates=one.updates)

    def facts() -> dict:
        row = dict(parameters=one.parameters, mixed_precision=one.precision)
        row |= dict(peak_memory_MB=peak_memory(), before_training_MB=before)
        if isinstance(last[0], TrainRecord):
            row["waited"] = round(last[0].waited, 4)
        return row | dict(first_steps_seconds=round(first, 1))

    return dict(
        steps=steps,
        facts=facts,
        profile=lambda: profiled(step),
        waiting=lambda n: waiting(task, "compiled" in name, n),
    )


def folder_of_pictures(task: Task, folder: Path, n: int = 512) -> Path:
    from PIL import Image

    for i, image in enumerate(task.images[:n].permute(0, 2, 3, 1).numpy()):
        Image.fromarray(np.squeeze(image)).save(folder / f"{i:04d}.png")
    return folder


def their_loader(task: Task, folder: Path, waited: list[float]) -> Iterator[Tensor]:
    """diffusers' example: pictures opened, mirrored and scaled one by one, in the
    process that trains."""
    from PIL import Image
    from torchvision import transforms as tv

    crop = [tv.Resize(task.config.image_size), tv.RandomCrop(task.config.image_size)]
    rest = [tv.RandomHorizontalFlip(), tv.ToTensor(), tv.Normalize([0.5], [0.5])]
    change, files = tv.Compose(crop + rest), sorted(folder.glob("*.png"))
    mode = "L" if task.config.in_channels == 1 else "RGB"

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, i: int) -> Tensor:
            return change(Image.open(files[i]).convert(mode))

    options = dict(shuffle=True, drop_last=True)
    loader = torch.utils.data.DataLoader(Pictures(), task.batch_size, **options)
    batches = chain.from_iterable(repeat(loader))
    while True:
        begun = time.perf_counter()
        batch = next(batches)
        waited[0] += time.perf_counter() - begun
        yield batch


def waiting(task: Task, compiled: bool, steps: int) -> dict:
    """The share of training that is spent waiting for pictures from a folder: ours,
    read by two processes; theirs, as their example reads them."""
    with tempfile.TemporaryDirectory() as name:
        folder, waited = folder_of_pictures(task, Path(name)), [0.0]
        channels, size = task.shape[:2]
        data = load_images(folder, image_size=size, channels=channels, stream=True)
        one = ddpm_lit(task, compiled=compiled, data=data)
        once(one.step, 2)
        records = [one.step()]
        passed = once(lambda: records.append(one.step()), steps)
        first, *_, last = records
        ours = last.waited * last.seconds - first.waited * first.seconds
        one = of_diffusers(task, "bf16", batches=their_loader(task, folder, waited))
        once(one.step, 3)
        waited[0] = 0.0
        theirs = once(one.step, steps)
    return {
        "ddpm_lit": round(ours / passed, 4),
        "diffusers, bfloat16": round(waited[0] / theirs, 4),
    }


# %% By turns


def alternate(
    task: Task,
    workers: dict[str, Worker],
    args: argparse.Namespace,
    clock: Clock,
) -> dict[str, dict]:
    "Images per second, by turns. All make the same steps; one that fails is left out."

    def ask(name: str, n: int) -> dict:
        end = Clock.of(60 + 60 * args.seconds)
        return attempt(lambda: workers[name].ask(end, "steps", n=n))

    warm = {name: ask(name, 3) for name in workers}
    warm = {name: found for name, found in warm.items() if "error" not in found}
    fastest = min(found["seconds"] for found in warm.values()) / 3
    steps, taken = max(1, round(args.seconds / fastest)), {name: [] for name in warm}
    for turn in range(args.rounds):
        if turn and clock.left < 0:
            break
        for name in list(taken):
            found = ask(name, steps)
            if "error" in found:
                del taken[name]
                continue
            taken[name].append(found["seconds"])
            wanted = warm[name]["updates"] + steps * len(taken[name])
            if found["updates"] != wanted:
                raise ValueError(f"{name}: {found['updates']} updates, not {wanted}")
        images = steps * task.batch_size
        speeds = {name: round(images / blocks[-1], 1) for name, blocks in taken.items()}
        print(task.name, speeds, flush=True)
    return {
        name: row_of(blocks, steps, task)
        | attempt(lambda: workers[name].ask(Clock.of(30), "facts"))
        for name, blocks in taken.items()
    }


def row_of(blocks: list[float], steps: int, task: Task) -> dict:
    "Images per second, from the seconds of each block."
    images = steps * task.batch_size
    return dict(
        images_per_second=round(images / statistics.median(blocks), 2),
        blocks=[round(images / seconds, 2) for seconds in blocks],
        steps_per_block=steps,
        updates=steps * len(blocks),
    )


def work(task: Task) -> dict[str, Any]:
    "FLOP of one image, forward and backward, in each library's network."
    x = torch.empty(1, *task.shape, device="meta")
    t = torch.ones(1, dtype=torch.int64, device="meta")
    with torch.device("meta"):
        ours = UNet(task.config)
    found = {"ddpm_lit": flops(ours, x, t)}
    if DEVICE == "cpu":
        other = "denoising-diffusion-pytorch"
        count = lambda: flops(lucidrains_network(task.config).to("meta"), x, t)
        found[other] = attempt(count)
    return found


def ratios(rows: dict[str, dict]) -> dict[str, dict[str, float]]:
    "How many times as fast each of ours is as each of theirs."
    speed = {name: row["images_per_second"] for name, row in rows.items()}
    ours = [name for name in rows if name.startswith("ddpm_lit")]
    theirs = [name for name in rows if name not in ours]
    return {a: {b: round(speed[a] / speed[b], 3) for b in theirs} for a in ours}


def missed(task: Task, facts: dict) -> list[str]:
    "The goals that no way of ours reaches, in words."
    if DEVICE == "cpu" or not facts["ratio"]:
        return []
    best = facts["fastest"]
    rows = facts["contenders"]
    ratio = facts["ratio"][best]
    said = [f"{ratio[b]} times {b}, not {x}" for b, x in GOALS.items() if b in ratio]
    kept = [ratio[b] >= x for b, x in GOALS.items() if b in ratio]
    if task.name == "celeba64":
        share = rows[best]["share_of_matrix_rate"]
        said.append(f"{share:.1%} of the matrix rate, not {RATE_GOAL:.0%}")
        kept.append(share >= RATE_GOAL)
    share = rows[best].get("waited", 0.0)
    said.append(f"{share:.1%} of the time waiting, not {WAIT_GOAL:.0%}")
    kept.append(share < WAIT_GOAL)
    return [words for words, good in zip(said, kept) if not good]


def compare(
    task: Task,
    workers: dict[str, Worker],
    check: Worker,
    args: argparse.Namespace,
    clock: Clock,
    rate: float,  # of the matrix product, FLOP/s
) -> dict:
    "One network: the check, the blocks, ratios, FLOP/s and profiles."
    clock.check(task.name, 3)
    with torch.device("meta"):
        size = size_of(UNet(task.config))
    facts = dict(image_size=task.shape[-1], batch_size=task.batch_size, parameters=size)
    facts["same_work"] = attempt(lambda: check.ask(Clock.of(30), "found"))
    counts = work(task)
    ready = {name: w for name, w in workers.items() if not w.error}
    rows = alternate(task, ready, args, clock.part(0.6))
    failed = {name: {"error": w.error} for name, w in workers.items() if w.error}
    for name, row in rows.items():
        count = counts.get(name.split(",")[0], counts["ddpm_lit"])
        if isinstance(count, float):
            share = row["images_per_second"] * count / rate
            row["share_of_matrix_rate"] = round(share, 4)
    gigaflop = {
        name: round(n / 1e9, 3) if isinstance(n, float) else n
        for name, n in counts.items()
    }
    facts |= dict(gigaflop_per_image=gigaflop, contenders=rows | failed)
    facts["ratio"] = ratios(rows)
    ours = list(facts["ratio"])
    speed = lambda name: rows[name]["images_per_second"]
    facts["fastest"] = max(ours, key=speed, default=None)
    facts["missed"] = missed(task, facts)
    wanted = [name for name in ours if "float32" not in name]
    if DEVICE == "cuda":
        wanted = list(rows) if facts["missed"] else []

    def look(name: str) -> dict:
        if DEVICE == "cuda":
            clock.check("a profile")
        return ready[name].ask(Clock.of(60), "profile")

    facts["profile"] = {name: attempt(lambda: look(name)) for name in wanted}
    return facts


# %% The run


def words() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--networks", nargs="+", default=list(BATCH), help=f"out of {list(PRESETS)}")
    add("--batch-size", type=int, help=f"instead of {BATCH}")
    add("--contenders", nargs="+", metavar="NAME", help=f"out of {list(CONTENDERS)}")
    add("--rounds", type=int, default=5, help="blocks of each")
    help = "length of a block of the fastest; the others make as many steps"
    add("--seconds", type=float, default=SECONDS, help=help)
    help = "leave out what is read from a folder"
    add("--no-waiting", action="store_true", help=help)
    add("--out", type=Path, default=ROOT / "results", help="folder of the result")
    shared_words(parser, DEADLINE)
    return parser.parse_args()


def jobs_of(tasks: list[Task], args: argparse.Namespace) -> dict[str, list[str]]:
    "What the workers are started with: one for each contender, and one for the check."
    jobs = {}
    for task in tasks:
        given = ["--networks", task.name, "--batch-size", str(task.batch_size)]
        names = args.contenders or default_contenders(task.name)
        for name in [*names, "check"]:
            jobs[f"{task.name}: {name}"] = [*given, "--contenders", name]
    return jobs


def of_task(workers: dict[str, Worker], task: Task) -> dict[str, Worker]:
    "The workers of a network, by the names of their contenders."
    mine = f"{task.name}: "
    return {n.removeprefix(mine): w for n, w in workers.items() if n.startswith(mine)}


def work_on(task: Task, name: str) -> None:
    "In a worker."
    if name == "check":
        found = attempt(lambda: same_work(task))
        return serve(lambda: dict(found=lambda: found))
    serve(lambda: training(task, name))


def main() -> None:
    args = words()
    warnings.filterwarnings("ignore")
    sizes = {name: args.batch_size or BATCH.get(name, 64) for name in args.networks}
    tasks = [Task(name, size) for name, size in sizes.items()]
    if args.worker:
        return work_on(tasks[0], args.contenders[0])
    run(tasks, args)


def run(tasks: list[Task], args: argparse.Namespace) -> None:
    "Start the workers, and time them network by network."
    jobs = jobs_of(tasks, args)
    workers = started(jobs, __file__, Clock.of(args.ready), args.at_once)
    clock = held(args)
    given = re.sub(r" *--(out|hold)[ =]\S+", "", shlex.join(sys.argv[1:]))
    command = f"python benchmarks/training.py {given}".strip()
    record, rate = origin(command, 0, "diffusers", "accelerate"), matrix_rate()
    record |= dict(threads=torch.get_num_threads())
    record |= dict(matrix_teraflop_per_second=round(rate / 1e12, 3), networks={})
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"training-{DEVICE}.json"
    for i, task in enumerate(tasks):
        mine = of_task(workers, task)
        part, check = clock.part(1 / (len(tasks) - i)), mine.pop("check")
        facts = attempt(lambda: compare(task, mine, check, args, part, rate))
        record["networks"][task.name] = facts
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(facts.get("ratio", facts)), facts.get("missed"), flush=True)
    for task in tasks:
        facts, mine = record["networks"][task.name], of_task(workers, task)
        best = mine.get(facts.get("fastest"))
        if best and not args.no_waiting and clock.left > (0 if DEVICE == "cpu" else 25):
            n = 20 if DEVICE == "cuda" else 5
            end = Clock.of(max(clock.left, 5 if DEVICE == "cuda" else 120))
            facts["waiting"] = attempt(lambda: best.ask(end, "waiting", n=n))
            path.write_text(json.dumps(record, indent=1) + "\n")
    for worker in workers.values():
        worker.stop()


if __name__ == "__main__":
    main()
