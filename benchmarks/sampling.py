"""Sampling beside diffusers' pipelines, with the same network and weights: `python
benchmarks/sampling.py`.

Images by DDIM-50 in this library (eager, compiled, in bfloat16 with the sampler's
arithmetic in float32) and, on a CPU, by DDPM-1000 in the fastest of these ways; beside
them diffusers' DDIMPipeline and DDPMPipeline as they come and, on a GPU, with the
network in float16 too. All are timed in one run, by turns, so that a busy machine slows
them alike; the median of `--rounds` turns is kept, and the ratios are of medians. Also
measured: the share of a step that is spent outside the network, and how far the images
of the same seed differ from theirs. On a CPU 64 images of 32×32 by a small network; on
a GPU 256 by the networks of the papers, 32×32 and 64×64.

Writes sampling-cpu.json, or sampling-cuda.json where there is a GPU, into the folder
`--out`."""

import argparse
import copy
import json
import re
import shlex
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from origin import ROOT, origin
from timing import DEVICE, Clock, attempt, flops, matrix_rate, median, once, profiled
from torch import Tensor, nn
from workers import held, serve, shared_words, started

from ddpm_lit import DDIM, DDPM, Denoiser, EPS, Parameterization, Run, UNet, UNetConfig
from ddpm_lit import V, draw_noise, linear_schedule, sample, to_diffusers
from ddpm_lit.configs import PRESETS

# Small, so that a thousand steps can be repeated on a CPU.
SMALL = UNetConfig(32, 3, 16, (1, 2, 2), 1, (8,), dropout=0.0)
TINY = UNetConfig(8, 3, 8, (1, 2), 1, (), dropout=0.0)
NETWORKS = PRESETS | {"small": SMALL, "tiny": TINY}
DEFAULT = {"cpu": ["small"], "cuda": ["cifar10", "celeba64"]}[DEVICE]
N = {"cpu": 64, "cuda": 256}[DEVICE]
SPEED_GOAL, OVERHEAD_GOAL = 3.0, 0.03  # times their pipeline; share of a walk

Model = Callable[[Tensor, Tensor], Tensor]
Clip = tuple[float, float] | None


# %% Who samples


def networks(config: UNetConfig) -> tuple[nn.Module, nn.Module]:
    "Ours and theirs, with the same weights, on the device."
    torch.manual_seed(0)
    ours = UNet(config).eval()
    # It starts at zero, and would answer nothing.
    nn.init.normal_(ours.conv_out.weight, std=0.02)
    with tempfile.TemporaryDirectory() as folder:
        to_diffusers(Run(ours, linear_schedule(), EPS, (-1, 1)), folder)
        options = dict(local_files_only=True)
        theirs = diffusers.UNet2DModel.from_pretrained(f"{folder}/unet", **options)
    ours = ours.to(DEVICE, memory_format=torch.channels_last)
    return ours, theirs.eval().to(DEVICE)


def cast(net: Model, dtype: torch.dtype = torch.float32) -> Model:
    "A network that takes what the sampler has."
    options = dict(memory_format=torch.channels_last)
    return lambda x, t: net(x.to(dtype, **options), t)


def our_ways(ours: nn.Module) -> dict[str, Model]:
    "The same network: eager, compiled, in bfloat16."
    bf16 = torch.bfloat16
    half = copy.deepcopy(ours).to(bf16)
    quickest = cast(torch.compile(half), bf16)
    if DEVICE == "cuda":
        eager = cast(half, bf16)
        return {
            "ddpm_lit, compiled, bfloat16": quickest,
            "ddpm_lit, bfloat16": eager,
        }
    return {
        "ddpm_lit": cast(ours),
        "ddpm_lit, compiled": cast(torch.compile(ours)),
        "ddpm_lit, compiled, bfloat16": quickest,
    }


def their_ways(theirs: nn.Module) -> dict[str, nn.Module]:
    if DEVICE == "cpu":
        return {"diffusers": theirs}
    half = copy.deepcopy(theirs).to(torch.float16)  # no bfloat16: it ends in numpy
    return {"diffusers": theirs, "diffusers, float16": half}


def walk(
    model: Model,
    sampler: Any,
    config: UNetConfig,
    n: int,
    param: Parameterization = EPS,
    clip: Clip = (-1, 1),
) -> Callable[[], Tensor]:
    "Our way from noise to images, which end on the CPU."
    shape = (n, config.in_channels, config.image_size, config.image_size)
    schedule = linear_schedule()

    def draw() -> Tensor:
        generator = torch.Generator(DEVICE).manual_seed(0)
        xT = draw_noise(shape, generator, DEVICE)
        denoiser = Denoiser(model, schedule, param, clip)
        with torch.inference_mode():
            return sample(denoiser, xT, sampler, generator=generator).cpu()

    return draw


def pipeline(
    kind: type,  # DDIMPipeline or DDPMPipeline
    net: nn.Module,
    steps: int,
    n: int,
    **options: Any,  # of its scheduler
) -> Callable[[], Tensor]:
    "Their way, as it comes."
    schedulers = {
        diffusers.DDIMPipeline: diffusers.DDIMScheduler,
        diffusers.DDPMPipeline: diffusers.DDPMScheduler,
    }
    made = kind(net, schedulers[kind](num_train_timesteps=1000, **options))
    made.set_progress_bar_config(disable=True)

    def draw() -> Tensor:
        generator = torch.Generator(net.device).manual_seed(0)
        asked = dict(batch_size=n, num_inference_steps=steps, output_type="np")
        return torch.from_numpy(made(**asked, generator=generator).images)

    return draw


# %% What is measured, in the workers


def alternate(
    calls: dict[str, Callable[[], Any]],
    rounds: int,
    clock: Clock,  # what would end after it is left out, but each is timed once
) -> dict[str, dict]:
    "Seconds of each call, by turns."
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            if turn and clock.left < seconds[name][0]:
                continue
            seconds[name].append(once(call))
        last = {name: round(taken[-1], 2) for name, taken in seconds.items()}
        print(last, file=sys.stderr, flush=True)
    return {
        name: {
            "median": round(statistics.median(taken), 4),
            "all": [round(t, 4) for t in taken],
        }
        for name, taken in seconds.items()
    }


def apart(
    models: dict[str, Model],
    theirs: nn.Module,
    config: UNetConfig,
    n: int,
) -> dict[str, float]:
    """Grey levels, out of 255, between our images and theirs of the same seed: the
    largest difference. (For v and without clipping: an untrained network that is asked
    for eps is clipped everywhere, and under clipping their DDIM departs from the
    paper.)"""
    options = dict(prediction_type="v_prediction", clip_sample=False)
    there = 255 * pipeline(diffusers.DDIMPipeline, theirs, 50, n, **options)()
    found, sampler = {}, DDIM(50, spacing="leading")
    for name, model in models.items():
        x = walk(model, sampler, config, n, param=V, clip=None)()
        here = 255 * (x.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1)
        found[name] = round((here - there).abs().max().item(), 3)
    return found


def overhead(model: Model, config: UNetConfig, n: int, rounds: int) -> float:
    """Share of a walk that is not spent in the network: the same walk with a network
    that hands back its input. On a GPU the host's work counts, though it hides behind
    the network's."""
    shape = (n, config.in_channels, config.image_size, config.image_size)
    answer = torch.zeros(shape, device=DEVICE)
    whole, without = (
        median(walk(m, DDIM(50), config, n), 1, rounds)
        for m in (model, lambda x, t: answer)
    )
    return without / whole


def beside(model: Model, config: UNetConfig, n: int, rounds: int) -> float:
    "Share by which 50 steps take longer than 50 calls of the network."
    shape = (n, config.in_channels, config.image_size, config.image_size)
    x = torch.randn(shape, device=DEVICE)
    t = torch.full((n,), 500, device=DEVICE)

    def calls() -> None:
        with torch.no_grad():  # as in a walk: another mode would be compiled anew
            for _ in range(50):
                model(x, t)

    calls()
    whole, alone = (
        median(call, 1, rounds) for call in (walk(model, DDIM(50), config, n), calls)
    )
    return 1 - alone / whole


def kinds_of_walk(steps: int) -> list[tuple[str, Any, type]]:
    "Ours and theirs of each kind."
    found = [("DDIM-50", DDIM(50, spacing="leading"), diffusers.DDIMPipeline)]
    if steps:
        found.append((f"DDPM-{steps}", DDPM(steps=steps), diffusers.DDPMPipeline))
    return found


class Measurement:
    "One network, in its worker: what is compiled before, and what is timed then."

    def __init__(self, config: UNetConfig, args: argparse.Namespace):
        self.config, self.args, self.n = config, args, args.n
        self.net, net = networks(config)
        self.ours, self.theirs = our_ways(self.net), their_ways(net)
        for model in self.ours.values():  # compilation, caches
            walk(model, DDIM(2), config, self.n)()
        for net in self.theirs.values():
            pipeline(diffusers.DDIMPipeline, net, 2, self.n)()
        if DEVICE == "cuda":
            torch.cuda.empty_cache()

    def found(self, seconds: float) -> dict:
        "Everything that is measured, the most important first."
        clock, config = Clock.of(seconds), self.config
        facts = self.facts()
        chosen = list(self.ours)
        for name, sampler, kind in kinds_of_walk(self.args.ddpm_steps):
            timed = facts[name] = self.timed(sampler, kind, chosen, clock)
            taken = {key: timed["seconds"][key]["median"] for key in chosen}
            chosen = [min(taken, key=taken.get)]
        facts["fastest"] = chosen[0]
        model = self.ours[chosen[0]]
        facts |= self.outside(model, clock)
        levels = lambda: self.levels(clock)
        facts["levels apart"] = attempt(levels)
        facts["missed"] = self.missed(facts)
        if facts["missed"]:
            look = lambda: profiled(walk(model, DDIM(5), config, self.n), 1)
            facts["profile"] = attempt(look)
        return facts

    def facts(self) -> dict:
        c, size = self.config, self.config.image_size
        x = torch.empty(1, c.in_channels, size, size, device="meta")
        t = torch.ones(1, dtype=torch.int64, device="meta")
        with torch.device("meta"):
            net = UNet(c)
        return dict(
            images=self.n,
            image_size=size,
            channels=c.channels,
            multipliers=c.multipliers,
            parameters=sum(p.numel() for p in net.parameters()),
            threads=torch.get_num_threads(),
            gigaflop_per_call=round(flops(net, x, t, backward=False) / 1e9, 3),
        )

    def timed(self, sampler: Any, kind: type, chosen: list[str], clock: Clock) -> dict:
        "One kind of walk, ours and theirs, and how many times as fast ours are."
        steps = len(sampler.pairs(linear_schedule()))
        ways = {
            key: walk(self.ours[key], sampler, self.config, self.n) for key in chosen
        }
        pipes = {
            k: pipeline(kind, net, steps, self.n) for k, net in self.theirs.items()
        }
        seconds = alternate(ways | pipes, self.args.rounds, clock)
        taken = {key: row["median"] for key, row in seconds.items()}
        ratio = lambda other: {key: round(taken[other] / taken[key], 3) for key in ways}
        found = dict(seconds=seconds, ratio=ratio("diffusers"))
        others = {f"ratio to {key}": ratio(key) for key in pipes if key != "diffusers"}
        return found | others

    def outside(self, model: Model, clock: Clock) -> dict:
        "What the sampler costs beside the network."
        rounds = self.args.rounds if clock.left > 5 else 1
        found = {}
        if DEVICE == "cuda":
            share = beside(model, self.config, self.n, rounds)
            found["more than the network"] = round(share, 4)
        else:
            model = self.ours["ddpm_lit"]
        share = overhead(model, self.config, self.n, rounds)
        return found | {"outside the network": round(share, 4)}

    def levels(self, clock: Clock) -> dict[str, float]:
        "How far our images are from theirs; in float32 without TF32."
        clock.check("levels apart", 3 if DEVICE == "cuda" else 0)
        models = {"ddpm_lit": cast(self.net)} | self.ours
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            n = 16 if DEVICE == "cuda" else self.n  # compiled anew for another number
            if DEVICE == "cuda":
                models = {k: m for k, m in models.items() if "compiled" not in k}
            return apart(models, self.theirs["diffusers"], self.config, n)

    def missed(self, facts: dict) -> list[str]:
        "The goals that the fastest way does not reach, in words."
        if DEVICE == "cpu":
            return []
        ratio = facts["DDIM-50"]["ratio"][facts["fastest"]]
        share, said = facts["more than the network"], []
        if ratio < SPEED_GOAL:
            said.append(f"{ratio} times their pipeline, not {SPEED_GOAL}")
        if share >= OVERHEAD_GOAL:
            said.append(f"{share:.1%} outside the network, not {OVERHEAD_GOAL:.0%}")
        return said


# %% The run


def words() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--networks", nargs="+", default=DEFAULT, help=f"out of {list(NETWORKS)}")
    add("--n", type=int, default=N, help="images of a walk")
    add("--rounds", type=int, default={"cpu": 5, "cuda": 3}[DEVICE])
    steps = {"cpu": 1000, "cuda": 0}[DEVICE]
    add("--ddpm-steps", type=int, default=steps, help="0: no DDPM")
    add("--threads", type=int, help="processor cores to compute with")
    add("--out", type=Path, default=ROOT / "results", help="folder of the result")
    shared_words(parser, {"cpu": 3600.0, "cuda": 120.0}[DEVICE])
    return parser.parse_args()


def jobs_of(args: argparse.Namespace) -> dict[str, list[str]]:
    "What the workers are started with, one for each network."
    given = ["--n", args.n, "--rounds", args.rounds, "--ddpm-steps", args.ddpm_steps]
    given += ["--threads", args.threads] if args.threads else []
    given = [str(word) for word in given]
    return {name: [*given, "--networks", name] for name in args.networks}


def run(args: argparse.Namespace) -> None:
    "Start the workers, and measure network by network."
    jobs = jobs_of(args)
    workers = started(jobs, __file__, Clock.of(args.ready), args.at_once)
    clock = held(args)
    given = re.sub(r" *--(out|hold)[ =]\S+", "", shlex.join(sys.argv[1:]))
    record = origin(f"python benchmarks/sampling.py {given}".strip(), 0, "diffusers")
    record |= dict(matrix_teraflop_per_second=round(matrix_rate() / 1e12, 3))
    args.out.mkdir(parents=True, exist_ok=True)
    path, found = args.out / f"sampling-{DEVICE}.json", {}
    for i, (name, worker) in enumerate(workers.items()):
        part = clock.part(1 / (len(workers) - i))
        end = Clock.of(max(part.left, 0) + 60)
        ask = lambda: worker.ask(end, "found", seconds=part.left)
        found[name] = attempt(ask)
        worker.stop()
        # The page reads the one network of a CPU without its name.
        alone = DEVICE == "cpu" and len(workers) == 1
        whole = record | (found[name] if alone else {"networks": found})
        path.write_text(json.dumps(whole, indent=1) + "\n")
        for key in ("DDIM-50", "levels apart", "more than the network", "missed"):
            print(name, key, found[name].get(key, found[name].get("error")), flush=True)


def main() -> None:
    args = words()
    warnings.filterwarnings("ignore")
    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.worker:
        return run(args)
    config = replace(NETWORKS[args.networks[0]], dropout=0.0)
    serve(lambda: dict(found=Measurement(config, args).found))


if __name__ == "__main__":
    main()
