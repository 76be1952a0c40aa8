"""Training beside diffusers and denoising-diffusion-pytorch: `python benchmarks/training.py`.

One network, from the same weights, trained by this library's Trainer and in a loop with the settings of diffusers' example for unconditional images (AdamW,
DDPMScheduler, EMAModel, accelerate, cosine rate, gradient clipped to 1, the loss read in each step); beside them denoising-diffusion-pytorch's network, of
nearly as many parameters, with the settings of its trainer. All train by turns in one run, so that a busy machine slows them alike; a block is a fixed number
of steps, and the median of `--rounds` blocks is kept. The pictures are random grey levels: the arithmetic is the same whatever they show. They are in memory
for everybody and reach the others as whole batches on the device, so what their loaders cost is not in these figures; that is measured apart, from a folder.
Checked in each run: both networks have the same loss and gradient on one batch, and every contender makes as many updates as it was asked for.
Writes results/training-cpu.json, or training-cuda.json where there is a GPU, after each network."""
import argparse
import copy
import json
import re
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from origin import ROOT, origin
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ddpm_lit import EPS, ImageData, Run, TrainConfig, Trainer, UNet, UNetConfig, ddpm_loss, linear_schedule, to_diffusers
from ddpm_lit.unet import PRESETS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH = {"cpu": {"mnist": 64, "cifar10": 8}, "cuda": {"mnist": 128, "cifar10": 128, "celeba64": 64}}[DEVICE]
SECONDS, MINUTES, MATRIX = {"cpu": (2, 20, 2048), "cuda": (1, 8, 8192)}[DEVICE]  # of a block, of the whole run; size of the matrices
LEVELS = 256
KINDS = [("compiled kernels", r"triton|CompiledFxGraph|cpp_fused"), ("attention", r"attention|fmha|flash|sdpa"), ("optimiser and average", r"adam|multi_tensor|foreach|lerp|vector_norm"),
         ("convolutions and matrix products", r"conv|gemm|cutlass|xmma|wgrad|dgrad|nvjet|aten::(add)?mm|bmm|matmul"), ("norms", r"norm"),
         ("copies and changes of layout", r"copy|aten::cat|CatArray|nchw|nhwc|transpose|memcpy|memset"), ("element by element", r"")]


# %% What trains

@dataclass(frozen=True)
class Task:
    "What all of them train on."
    name: str
    batch_size: int

    @cached_property
    def config(self) -> UNetConfig: return PRESETS[self.name]

    @cached_property
    def images(self) -> Tensor:
        shape = (2048, self.config.in_channels, self.config.image_size, self.config.image_size)
        return torch.randint(0, LEVELS, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    @cached_property
    def networks(self) -> tuple[nn.Module, nn.Module]:
        "Ours and diffusers', with the same weights. None is left at zero, where a network starts and would hide what lies before it."
        torch.manual_seed(0)
        ours = UNet(self.config)
        for p in ours.parameters():
            if not p.any(): nn.init.normal_(p, std=0.02)
        with tempfile.TemporaryDirectory() as folder:
            to_diffusers(Run(ours, linear_schedule(), EPS, (-1, 1), {}), folder)
            return ours, diffusers.UNet2DModel.from_pretrained(f"{folder}/unet", local_files_only=True)

    def batches(self) -> Iterator[Tensor]:
        "(B, C, H, W) float in [-1, 1] on the device, half of them mirrored."
        images = self.images.to(DEVICE)
        while True:
            x = images[torch.randint(len(images), (self.batch_size,), device=DEVICE)].float() / 127.5 - 1
            yield torch.where(torch.rand(self.batch_size, 1, 1, 1, device=DEVICE) < 0.5, x.flip(-1), x)


@dataclass(frozen=True)
class Contender:
    "Somebody's training, a step at a time."
    step: Callable[[], object]
    optimizer: torch.optim.Optimizer
    parameters: int
    precision: str

    @property
    def updates(self) -> int: return int(next(iter(self.optimizer.state.values()))["step"])


def ddpm_lit(task: Task, precision: str = "auto", compiled: bool = False, data=None) -> Contender:
    config = TrainConfig(steps=10**9, batch_size=task.batch_size, lr=1e-4, flip=True, precision=precision, compile=compiled)
    trainer = Trainer(copy.deepcopy(task.networks[0]), linear_schedule(), data or ImageData(task.images), config, device=DEVICE)
    steps = trainer.steps()
    precision = {None: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}[trainer.half]
    return Contender(lambda: next(steps), trainer.adam, sum(p.numel() for p in trainer.model.parameters()), precision)


def accelerator(precision: str, compiled: bool = False) -> Accelerator:
    AcceleratorState._reset_state()  # it refuses a second precision in one process
    return Accelerator(mixed_precision=precision, cpu=DEVICE == "cpu", dynamo_backend="inductor" if compiled else "no")


def of_diffusers(task: Task, precision: str = "no", compiled: bool = False, batches: Iterator[Tensor] | None = None) -> Contender:
    run, net, scheduler = accelerator(precision, compiled), copy.deepcopy(task.networks[1]), diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    parameters = sum(p.numel() for p in net.parameters())
    ema = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75, model_cls=diffusers.UNet2DModel, model_config=net.config)
    adam = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    net, optimizer, rate = run.prepare(net, adam, get_scheduler("cosine", adam, num_warmup_steps=500, num_training_steps=10**6))
    ema.to(run.device)
    net.train()
    batches, dtype = batches or task.batches(), torch.bfloat16 if precision == "bf16" else torch.float32

    def step() -> float:
        clean = next(batches).to(run.device, dtype)
        noise, times = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),), device=run.device)
        with run.accumulate(net):
            loss = F.mse_loss(net(scheduler.add_noise(clean, noise, times), times).sample.float(), noise.float())
            run.backward(loss)
            run.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
        ema.step(net.parameters())
        return loss.item()
    return Contender(step, adam, parameters, precision)


def lucidrains_network(config: UNetConfig) -> nn.Module:
    "Its U-Net on the same levels, of the width that brings it closest to our number of parameters."
    from denoising_diffusion_pytorch import Unet
    make = lambda dim: Unet(dim=dim, dim_mults=config.multipliers, channels=config.in_channels, dropout=config.dropout)
    count = lambda net: sum(p.numel() for p in net.parameters())
    with torch.device("meta"): want, counts = count(UNet(config)), {dim: count(make(dim)) for dim in range(16, 2 * config.channels, 4)}
    return make(min(counts, key=lambda dim: abs(counts[dim] - want)))


def of_lucidrains(task: Task, precision: str = "no") -> Contender:
    from denoising_diffusion_pytorch import GaussianDiffusion
    from ema_pytorch import EMA
    run, net = accelerator(precision), lucidrains_network(task.config)
    parameters = sum(p.numel() for p in net.parameters())
    model = GaussianDiffusion(net, image_size=task.config.image_size).to(DEVICE)
    adam, ema = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99)), EMA(model, beta=0.995, update_every=10).to(DEVICE)
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
    return Contender(step, adam, parameters, precision)


CONTENDERS: dict[str, Callable[[Task], Contender]] = {
    "ddpm_lit": ddpm_lit,
    "ddpm_lit, compiled": lambda task: ddpm_lit(task, compiled=True),
    "ddpm_lit, float32": lambda task: ddpm_lit(task, "fp32"),
    "diffusers, float32": of_diffusers,
    "diffusers, bfloat16": lambda task: of_diffusers(task, "bf16"),
    "diffusers, bfloat16, compiled": lambda task: of_diffusers(task, "bf16", True),
    "denoising-diffusion-pytorch, float32": of_lucidrains,
    "denoising-diffusion-pytorch, bfloat16": lambda task: of_lucidrains(task, "bf16"),
}


# %% What is measured

def now() -> float:
    if DEVICE == "cuda": torch.cuda.synchronize()
    return time.perf_counter()


def once(call: Callable, times: int = 1) -> float:
    started = now()
    for _ in range(times): call()
    return now() - started


def attempt(call: Callable):
    "What `call` returns, or why it does not, in a line."
    try: return call()
    except Exception as problem:
        print(f"{type(problem).__name__}: {problem}"[:2000], file=sys.stderr, flush=True)
        return {"error": " ".join(f"{type(problem).__name__}: {problem}".split())[:200]}


def same_work(task: Task) -> dict:
    "Loss and gradient's norm of both networks on one batch, in float32 and without dropout. ValueError where they differ."
    ours, theirs = (copy.deepcopy(net).to(DEVICE).eval() for net in task.networks)
    x0, t = next(task.batches()), torch.randint(1, 1001, (task.batch_size,), device=DEVICE)
    eps, scheduler = torch.randn_like(x0), diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    with torch.backends.cudnn.flags(allow_tf32=False):
        losses = [ddpm_loss(ours, linear_schedule(), x0, t, eps), F.mse_loss(theirs(scheduler.add_noise(x0, eps, t - 1), t - 1).sample, eps)]
        for loss in losses: loss.backward()
    norms = [torch.stack([p.grad.norm() for p in net.parameters()]).norm().item() for net in (ours, theirs)]
    losses = [loss.item() for loss in losses]
    if abs(losses[0] - losses[1]) > 1e-4 or abs(norms[0] / norms[1] - 1) > 1e-3: raise ValueError(f"the networks differ: losses {losses}, norms of the gradient {norms}")
    return {"loss": [round(x, 6) for x in losses], "gradient's norm": [round(x, 5) for x in norms]}


def flops(net: nn.Module, task: Task) -> float:
    "Floating-point operations of one image, forward and backward; no number is computed for it."
    net, x = copy.deepcopy(net).to("meta"), torch.empty(1, task.config.in_channels, task.config.image_size, task.config.image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        net(x, torch.ones(1, dtype=torch.int64, device="meta")).sum().backward()
    return float(counter.get_total_flops())


def matrix_rate() -> float:
    "FLOP/s of a large product of bfloat16 matrices."
    a, b = torch.randn(2, MATRIX, MATRIX, device=DEVICE, dtype=torch.bfloat16)
    once(lambda: a @ b, 5)
    return 2 * MATRIX**3 * 10 / statistics.median(once(lambda: a @ b, 10) for _ in range(5))


def held() -> int: return torch.cuda.memory_allocated() if DEVICE == "cuda" else 0


def alternate(task: Task, made: dict[str, Contender], own: dict[str, int], args: argparse.Namespace) -> dict[str, dict]:
    "Images per second, by turns, and on a GPU the most memory that each would have held alone. All make the same steps."
    steps = max(1, round(args.seconds / min(statistics.median(once(one.step) for _ in range(3)) for one in made.values())))
    before, seconds, memory = {name: one.updates for name, one in made.items()}, {name: [] for name in made}, dict.fromkeys(made, 0)
    for done in range(args.rounds):
        if done and time.monotonic() > args.deadline: break
        for name, one in made.items():
            others = held() - own[name]
            if DEVICE == "cuda": torch.cuda.reset_peak_memory_stats()
            seconds[name].append(once(one.step, steps))
            if DEVICE == "cuda": memory[name] = max(memory[name], torch.cuda.max_memory_allocated() - others)
        print({name: round(steps * task.batch_size / taken[-1], 1) for name, taken in seconds.items()}, flush=True)
    asked, found = steps * len(next(iter(seconds.values()))), {name: one.updates - before[name] for name, one in made.items()}
    if set(found.values()) != {asked}: raise ValueError(f"each was asked for {asked} updates and made {found}")
    speed = lambda taken: steps * task.batch_size / taken
    return {name: dict(images_per_second=round(speed(statistics.median(taken)), 2), blocks=[round(speed(t), 2) for t in taken], steps_per_block=steps,
                       updates=found[name], parameters=made[name].parameters, mixed_precision=made[name].precision)
            | ({"peak_memory_MB": round(memory[name] / 2**20)} if DEVICE == "cuda" else {}) for name, taken in seconds.items()}


def build(task: Task, names: list[str], deadline: float) -> tuple[dict[str, Contender], dict[str, int], dict[str, dict]]:
    "Those that can be made and do their first steps, the memory they hold, and what keeps the others."
    made, own, failed = {}, {}, {}
    for name in names:
        def start() -> Contender:
            if time.monotonic() > deadline: raise TimeoutError("no time was left for it")
            one = CONTENDERS[name](task)
            print(f"{task.name}: {name}, first steps in {once(one.step, 3):.1f} s", flush=True)
            return one
        before, one = held(), attempt(start)
        if isinstance(one, dict): failed[name] = one
        else: made[name], own[name] = one, held() - before
    return made, own, failed


def profiled(one: Contender, steps: int = 3) -> dict:
    "Where a step's time goes: kinds of work and the largest single operations, as shares of the time that the device was at work, and the share in which it was."
    key = "self_device_time_total" if DEVICE == "cuda" else "self_cpu_time_total"
    with profile(activities=[getattr(ProfilerActivity, kind) for kind in ({"CPU", "CUDA"} if DEVICE == "cuda" else {"CPU"})]) as seen: wall = once(one.step, steps)
    spans = ("##", "Optimizer", "Torch-Compiled", "ProfilerStep")  # on a GPU they cover kernels that are counted themselves
    kernels = [e for e in seen.key_averages() if DEVICE == "cpu" or e.device_type == torch.autograd.DeviceType.CUDA and not e.key.startswith(spans)]
    rows = sorted(((getattr(e, key), e.key) for e in kernels), reverse=True)
    total, kinds = sum(spent for spent, _ in rows), dict.fromkeys((kind for kind, _ in KINDS), 0.0)
    for spent, name in rows: kinds[next(kind for kind, words in KINDS if re.search(words, name, re.I))] += spent / total
    return dict(at_work=round(total / 1e6 / wall, 3), kinds={kind: round(share, 3) for kind, share in kinds.items()}, largest={name[:64]: round(spent / total, 3) for spent, name in rows[:10]})


def folder_of_pictures(task: Task, folder: Path, n: int = 512) -> Path:
    from PIL import Image
    for i, image in enumerate(task.images[:n].permute(0, 2, 3, 1).numpy()): Image.fromarray(np.squeeze(image)).save(folder / f"{i:04d}.png")
    return folder


def their_loader(task: Task, folder: Path, waited: list[float]) -> Iterator[Tensor]:
    "diffusers' example: pictures opened, mirrored and scaled one by one, in the process that trains."
    from PIL import Image
    from torchvision import transforms as tv
    change = tv.Compose([tv.Resize(task.config.image_size), tv.RandomCrop(task.config.image_size), tv.RandomHorizontalFlip(), tv.ToTensor(), tv.Normalize([0.5], [0.5])])
    mode, files = "L" if task.config.in_channels == 1 else "RGB", sorted(folder.glob("*.png"))
    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int: return len(files)
        def __getitem__(self, i: int) -> Tensor: return change(Image.open(files[i]).convert(mode))
    loader = torch.utils.data.DataLoader(Pictures(), task.batch_size, shuffle=True, drop_last=True)
    batches = chain.from_iterable(repeat(loader))
    while True:
        started = time.perf_counter()
        batch = next(batches)
        waited[0] += time.perf_counter() - started
        yield batch


def waiting(task: Task, compiled: bool, steps: int) -> dict:
    "The share of training that is spent waiting for pictures from a folder: ours, read by two processes; theirs, as their example reads them."
    from ddpm_lit import load_images
    with tempfile.TemporaryDirectory() as name:
        folder, waited = folder_of_pictures(task, Path(name)), [0.0]
        data = load_images(folder, image_size=task.config.image_size, channels=task.config.in_channels, stream=True)
        one = ddpm_lit(task, compiled=compiled, data=data)
        once(one.step, 2)
        records = [one.step()]
        passed = once(lambda: records.append(one.step()), steps)
        ours = records[-1].waited * records[-1].seconds - records[0].waited * records[0].seconds
        one = of_diffusers(task, "bf16", batches=their_loader(task, folder, waited))
        once(one.step, 3)
        waited[0] = 0.0
        theirs = once(one.step, steps)
    return {"ddpm_lit": round(ours / passed, 4), "diffusers, bfloat16": round(waited[0] / theirs, 4)}


# %% In a process of its own: the memory of each contender on a CPU; on a GPU, the compiled kernels, which the cache then holds

def alone(task: Task, name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    once(CONTENDERS[name](task).step, 3)
    print(json.dumps({"peak_memory_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), "before_training_MB": round(before / 1024)}))


def in_processes(jobs: list[tuple[Task, str]], deadline: float) -> dict[tuple[str, str], dict]:
    def job(task: Task, name: str) -> dict:
        if time.monotonic() > deadline: return {"memory_error": "no time was left for it"}
        words = [sys.executable, __file__, "--networks", task.name, "--batch-size", str(task.batch_size), "--alone", name]
        done = subprocess.run(words, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"memory_error": (done.stderr.strip().splitlines() or ["killed"])[-1][:200]}
    with ThreadPoolExecutor(1 if DEVICE == "cpu" else 6) as pool: answers = list(pool.map(lambda words: job(*words), jobs))
    return {(task.name, name): answer for (task, name), answer in zip(jobs, answers)}


# %% The run

def compare(task: Task, args: argparse.Namespace, rate: float) -> dict:
    "One network: the check, the blocks, ratios, FLOP/s, profiles and waiting."
    parameters = sum(p.numel() for p in task.networks[0].parameters())
    facts = dict(image_size=task.config.image_size, batch_size=task.batch_size, parameters=parameters, same_work=same_work(task))
    print(task.name, facts["same_work"], flush=True)
    made, own, failed = build(task, args.contenders, args.deadline)
    measured = alternate(task, made, own, args)
    work = {"ddpm_lit": flops(task.networks[0], task), "denoising-diffusion-pytorch": attempt(lambda: flops(lucidrains_network(task.config), task))}
    for name, row in measured.items():
        if isinstance(count := work.get(name.split(",")[0], work["ddpm_lit"]), float): row["share_of_matrix_rate"] = round(row["images_per_second"] * count / rate, 4)
    ours, theirs = ([name for name in measured if name.startswith("ddpm_lit") == mine] for mine in (True, False))
    ratio = {name: {other: round(measured[name]["images_per_second"] / measured[other]["images_per_second"], 3) for other in theirs} for name in ours}
    where = {name: attempt(lambda: profiled(made[name])) for name in ours if "float32" not in name}
    fastest = max(ours, key=lambda name: measured[name]["images_per_second"], default="ddpm_lit")
    made.clear()
    facts |= dict(gigaflop_per_image={name: round(n / 1e9, 3) if isinstance(n, float) else n for name, n in work.items()}, contenders=measured | failed, ratio=ratio, profile=where)
    if time.monotonic() < args.deadline: facts["waiting"] = attempt(lambda: waiting(task, "compiled" in fastest, 20 if DEVICE == "cuda" else 5))
    return facts


def words() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=list(BATCH), help="out of mnist, cifar10, celeba64")
    parser.add_argument("--batch-size", type=int, help=f"instead of {BATCH}")
    parser.add_argument("--contenders", nargs="+", default=[name for name in CONTENDERS if DEVICE == "cpu" or name != "ddpm_lit, float32"], metavar="NAME", help=f"out of {list(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of a block of the fastest; the others make as many steps")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="nothing new is begun after them")
    parser.add_argument("--no-memory", action="store_true", help="leave out the processes that measure memory on a CPU and compile ahead on a GPU")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / f"training-{DEVICE}.json")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = words()
    args.deadline = time.monotonic() + 60 * args.minutes
    warnings.filterwarnings("ignore")
    tasks = [Task(name, args.batch_size or BATCH.get(name, 64)) for name in args.networks]
    if args.alone: return alone(tasks[0], args.alone)
    jobs = [(task, name) for name in args.contenders for task in tasks if DEVICE == "cpu" or "compiled" in name]
    memory = {} if args.no_memory else in_processes(jobs, args.deadline - 30 * args.minutes)
    given = re.sub(r" *--out[ =]\S+", "", shlex.join(sys.argv[1:]))
    record, rate = origin(f"python benchmarks/training.py {given}".strip(), 0, "diffusers", "accelerate"), matrix_rate()
    record |= dict(threads=torch.get_num_threads(), matrix_teraflop_per_second=round(rate / 1e12, 3), networks={})
    for task in tasks:
        record["networks"][task.name] = facts = attempt(lambda: compare(task, args, rate))
        for name, row in facts.get("contenders", {}).items(): row |= memory.get((task.name, name), {}) if DEVICE == "cpu" else {}
        print(json.dumps(facts.get("ratio", facts), indent=1), flush=True)
        args.out.write_text(json.dumps(record, indent=1) + "\n")
        torch._dynamo.reset()


if __name__ == "__main__": main()
