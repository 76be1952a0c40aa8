"""What the device can do, and what our networks reach of it:
`python benchmarks/device.py`.

Two ceilings, the rate of a large product of bfloat16 matrices and that of a large copy.
Then the network's forward and backward pass under autocast, in bfloat16: with channels
first and last in memory, eager and compiled, and for several sizes of the batch.
Each way is compiled in a process of its own and timed when its turn comes.

Writes device-cpu.json, or device-cuda.json where there is a GPU, into `--out`."""

import argparse
import json
import re
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from origin import ROOT, origin
from timing import (
    DEVICE,
    Clock,
    attempt,
    copy_rate,
    flops,
    matrix_rate,
    median,
    once,
    profiled,
)
from torch import nn
from workers import Worker, held, serve, shared_words, started

from ddpm_lit import UNet
from ddpm_lit.configs import PRESETS

LAYOUTS = {"first": torch.contiguous_format, "last": torch.channels_last}
MODES = ("no", "default", "reduce-overhead")  # of the compiler
# Network, batch size, where the channels are, mode; the most important first.
WAYS = {
    "cuda": [
        ("cifar10", 128, "last", "no"),
        ("cifar10", 128, "first", "no"),
        ("cifar10", 128, "last", "default"),
        ("cifar10", 128, "first", "default"),
        ("celeba64", 256, "last", "default"),
        ("celeba64", 128, "last", "default"),
        ("celeba64", 64, "last", "default"),
    ],
    "cpu": [
        ("mnist", 64, "last", "no"),
        ("mnist", 64, "first", "no"),
        ("mnist", 64, "last", "default"),
        ("mnist", 64, "first", "default"),
    ],
}[DEVICE]


def passes(network: str, batch: int, layout: str, mode: str) -> Callable[[], None]:
    "A forward and a backward pass, as the trainer makes them."
    torch.manual_seed(0)
    c, order = PRESETS[network], LAYOUTS[layout]
    net = UNet(c).to(DEVICE, memory_format=order)
    run: nn.Module = net
    if mode != "no":
        run = torch.compile(net, mode=mode)
    shape = (batch, c.in_channels, c.image_size, c.image_size)
    x = torch.randn(shape, device=DEVICE).contiguous(memory_format=order)
    t = torch.randint(1, 1001, (batch,), device=DEVICE)

    def both() -> None:
        net.zero_grad(set_to_none=True)
        if mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(DEVICE, torch.bfloat16):
            out = run(x, t)
        out.float().square().mean().backward()

    return both


def way(network: str, batch: int, layout: str, mode: str) -> dict[str, Callable]:
    "In a worker: after the first passes."
    both = passes(network, batch, layout, mode)
    first = once(both, 3)
    if DEVICE == "cuda":
        torch.cuda.empty_cache()  # the others need room in order to compile

    def found(seconds: float) -> dict:
        once(both, 2)
        taken = median(both, 1, 3)
        times = max(1, round(seconds / taken / 5))
        taken = median(both, times, 5)
        row = dict(images_per_second=round(batch / taken, 1), times=5 * times)
        if DEVICE == "cuda":
            peak = torch.cuda.max_memory_allocated() / 2**20
            row["peak_memory_MB"] = round(peak)
        return row | dict(first_passes_seconds=round(first, 1))

    return dict(found=found, profile=lambda: profiled(both))


def work(network: str) -> float:
    "FLOP of one image, forward and backward."
    c = PRESETS[network]
    x = torch.empty(1, c.in_channels, c.image_size, c.image_size, device="meta")
    with torch.device("meta"):
        return flops(UNet(c), x, torch.ones(1, dtype=torch.int64))


def named(way: tuple[str, int, str, str]) -> str:
    return "{}, batch {}, channels {}, compiled: {}".format(*way)


def measure(
    workers: dict[str, Worker],
    ways: list[tuple[str, int, str, str]],
    rate: float,  # of the matrix product, FLOP/s
    args: argparse.Namespace,
    clock: Clock,
) -> dict[str, dict]:
    rows = {}
    for one in ways:
        name = named(one)

        def ask() -> dict:
            clock.check(name, 2 * args.seconds)
            end = Clock.of(clock.left + 20)
            return workers[name].ask(end, "found", seconds=args.seconds)

        rows[name] = row = attempt(ask)
        if "images_per_second" in row:
            share = row["images_per_second"] * work(one[0]) / rate
            row["share_of_matrix_rate"] = round(share, 4)
        print(name, row, flush=True)
    return rows


def words() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--ways", nargs="+", help="NETWORK,BATCH,first|last,MODE ...")
    add("--seconds", type=float, default=1.0, help="for which a way is timed")
    add("--no-profile", action="store_true")
    add("--out", type=Path, default=ROOT / "results", help="folder of the result")
    shared_words(parser, {"cpu": 600.0, "cuda": 60.0}[DEVICE])
    return parser.parse_args()


def parsed(word: str) -> tuple[str, int, str, str]:
    network, batch, layout, mode = word.split(",")
    return network, int(batch), layout, mode


def run(ways: list[tuple[str, int, str, str]], args: argparse.Namespace) -> None:
    "The ceilings, then the ways."
    jobs = {named(one): ["--ways", ",".join(map(str, one))] for one in ways}
    workers = started(jobs, __file__, Clock.of(args.ready), args.at_once)
    clock = held(args)
    given = re.sub(r" *--(out|hold)[ =]\S+", "", shlex.join(sys.argv[1:]))
    record: dict[str, Any] = origin(f"python benchmarks/device.py {given}".strip(), 0)
    rate = matrix_rate()
    record |= dict(matrix_teraflop_per_second=round(rate / 1e12, 3))
    record |= dict(copy_gigabyte_per_second=round(copy_rate() / 1e9, 1))
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"device-{DEVICE}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    ceilings = {key: record[key] for key in record if "per_second" in key}
    print(record["hardware"], ceilings, flush=True)
    record["ways"] = measure(workers, ways, rate, args, clock)
    path.write_text(json.dumps(record, indent=1) + "\n")
    if not args.no_profile and clock.left > 5:
        eager = [named(one) for one in ways if one[3] == "no"]
        look = lambda name: workers[name].ask(Clock.of(30), "profile")
        record["profile"] = {name: attempt(lambda: look(name)) for name in eager}
        path.write_text(json.dumps(record, indent=1) + "\n")
    for worker in workers.values():
        worker.stop()


def main() -> None:
    args = words()
    warnings.filterwarnings("ignore")
    ways = [parsed(word) for word in args.ways] if args.ways else WAYS
    if args.worker:
        return serve(lambda: way(*ways[0]))
    run(ways, args)


if __name__ == "__main__":
    main()
