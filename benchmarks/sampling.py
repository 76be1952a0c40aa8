"""Sampling beside diffusers' pipelines, with the same network and weights: `python benchmarks/sampling.py`.

64 images at 32×32 by DDIM-50 in this library (eager; compiled; compiled with the network in bfloat16 and the sampler's arithmetic in float32), and by
DDPM-1000 in the fastest of these ways; beside them diffusers' DDIMPipeline and DDPMPipeline as they come. All are timed in one run, by turns, so that a busy machine slows them alike; the
median of `--rounds` turns is kept, and the ratios are of medians. Also measured: the share of a step that is spent outside the network, and how far the
images of the same seed differ from theirs. Writes results/sampling-cpu.json, or sampling-cuda.json where there is a GPU."""

import argparse
import copy
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import diffusers
import torch
from origin import ROOT, origin

from ddpm_lit import (
    DDIM,
    DDPM,
    EPS,
    V,
    Run,
    UNet,
    UNetConfig,
    draw_noise,
    linear_schedule,
    sample,
    to_diffusers,
)

CPU = UNetConfig(
    32, 3, 16, (1, 2, 2), 1, (8,), dropout=0.0
)  # small, so that a thousand steps can be repeated
GPU = UNetConfig(dropout=0.0)  # the DDPM paper's for CIFAR-10
N = 64


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def once(call: Callable) -> float:
    started = now()
    call()
    return now() - started


def alternate(calls: dict[str, Callable], rounds: int) -> dict[str, dict]:
    "Seconds of each call, by turns."
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(once(call))
        print(
            {name: round(taken[-1], 2) for name, taken in seconds.items()}, flush=True
        )
    return {
        name: {
            "median": round(statistics.median(taken), 4),
            "all": [round(t, 4) for t in taken],
        }
        for name, taken in seconds.items()
    }


def contenders(config: UNetConfig, device: str) -> tuple[dict, dict]:
    "Our networks (eager, compiled, compiled in bfloat16), and theirs, all with the same weights."
    torch.manual_seed(0)
    ours = UNet(config).eval()
    torch.nn.init.normal_(
        ours.conv_out.weight, std=0.02
    )  # it starts at zero, and would answer nothing
    with tempfile.TemporaryDirectory() as folder:
        to_diffusers(Run(ours, linear_schedule(), EPS, (-1, 1), {}), folder)
        theirs = diffusers.UNet2DModel.from_pretrained(
            f"{folder}/unet", local_files_only=True
        ).eval()
    ours = ours.to(device, memory_format=torch.channels_last)
    half = copy.deepcopy(ours).to(torch.bfloat16)
    cast = lambda net, dtype=torch.float32: (
        lambda x, t: net(x.to(dtype, memory_format=torch.channels_last), t)
    )
    return {
        "ddpm_lit": cast(ours),
        "ddpm_lit, compiled": cast(torch.compile(ours)),
        "ddpm_lit, compiled, bfloat16": cast(torch.compile(half), torch.bfloat16),
    }, {"diffusers": theirs.to(device)}


def walk(
    model: Callable, sampler, config: UNetConfig, device: str, **options
) -> Callable:
    shape = (N, config.in_channels, config.image_size, config.image_size)

    def draw():
        generator = torch.Generator(device).manual_seed(0)
        with torch.inference_mode():
            x = sample(
                model,
                linear_schedule(),
                draw_noise(shape, generator, device),
                sampler,
                generator=generator,
                **{"clip": (-1, 1)} | options,
            )
        return x.cpu()

    return draw


def pipeline(kind: type, net, steps: int, **options) -> Callable:
    schedulers = {
        diffusers.DDIMPipeline: diffusers.DDIMScheduler,
        diffusers.DDPMPipeline: diffusers.DDPMScheduler,
    }
    made = kind(net, schedulers[kind](num_train_timesteps=1000, **options))
    made.set_progress_bar_config(disable=True)
    return lambda: torch.from_numpy(
        made(
            batch_size=N,
            num_inference_steps=steps,
            generator=torch.Generator(net.device).manual_seed(0),
            output_type="np",
        ).images
    )


def apart(models: dict, theirs, config: UNetConfig, device: str) -> dict[str, float]:
    """Grey levels, out of 255, between our images and theirs of the same seed: the largest difference. (For v and without clipping: an untrained network
    that is asked for eps is clipped everywhere, and under clipping their DDIM departs from the paper.)"""
    there = pipeline(
        diffusers.DDIMPipeline,
        theirs,
        50,
        prediction_type="v_prediction",
        clip_sample=False,
    )()
    to_levels = lambda x: 255 * (x.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1)
    return {
        name: round(
            (
                to_levels(
                    walk(
                        model,
                        DDIM(50, spacing="leading"),
                        config,
                        device,
                        param=V,
                        clip=None,
                    )()
                )
                - 255 * there
            )
            .abs()
            .max()
            .item(),
            3,
        )
        for name, model in models.items()
    }


def overhead(
    model: Callable, sampler, config: UNetConfig, device: str, rounds: int
) -> float:
    "Share of a walk that is not spent in the network: the same walk with a network that hands back its input."
    answer = torch.zeros(
        N, config.in_channels, config.image_size, config.image_size, device=device
    )
    whole, without = (
        statistics.median(once(walk(m, sampler, config, device)) for _ in range(rounds))
        for m in (model, lambda x, t: answer)
    )
    return without / whole


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--ddpm-steps", type=int, default=1000)
    words.add_argument("--threads", type=int, help="processor cores to compute with")
    args = words.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, measured = GPU if device == "cuda" else CPU, {}
    ours, theirs = contenders(config, device)
    for model in ours.values():
        walk(model, DDIM(2), config, device)()  # compilation, caches
    pipeline(diffusers.DDIMPipeline, theirs["diffusers"], 2)()
    chosen = list(ours)
    for name, sampler, kind in (
        ("DDIM-50", DDIM(50, spacing="leading"), diffusers.DDIMPipeline),
        (
            f"DDPM-{args.ddpm_steps}",
            DDPM(steps=args.ddpm_steps),
            diffusers.DDPMPipeline,
        ),
    ):
        calls = {
            key: walk(model, sampler, config, device)
            for key, model in ours.items()
            if key in chosen
        }
        calls |= {
            key: pipeline(kind, net, len(sampler.pairs(linear_schedule())))
            for key, net in theirs.items()
        }
        seconds = alternate(calls, args.rounds)
        measured[name] = dict(
            seconds=seconds,
            ratio={
                key: round(seconds["diffusers"]["median"] / seconds[key]["median"], 3)
                for key in chosen
            },
        )
        chosen = [min(chosen, key=lambda key: seconds[key]["median"])]
        print(name, measured[name]["ratio"], flush=True)
    measured["levels apart"] = apart(ours, theirs["diffusers"], config, device)
    print(measured["levels apart"], flush=True)
    measured["outside the network"] = round(
        overhead(ours["ddpm_lit"], DDIM(50), config, device, args.rounds), 4
    )
    parameters = sum(p.numel() for p in UNet(config).parameters())
    record = origin(
        shlex.join(["python", "benchmarks/sampling.py", *sys.argv[1:]]), 0, "diffusers"
    )
    record |= dict(
        images=N,
        image_size=config.image_size,
        channels=config.channels,
        multipliers=config.multipliers,
        parameters=parameters,
        threads=torch.get_num_threads(),
        **measured,
    )
    (ROOT / "results" / f"sampling-{device}.json").write_text(
        json.dumps(record, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
