"Clocks, deadlines, rates and profiles that the comparisons share."

import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MATRIX = {"cpu": 2048, "cuda": 8192}[DEVICE]  # rows and columns
REPEATS = {"cpu": (2, 3), "cuda": (10, 5)}[DEVICE]  # of a ceiling: calls, blocks
COPY = {"cpu": 2**26, "cuda": 2**32}[DEVICE]  # bytes


@dataclass(frozen=True)
class Clock:
    "A share of the time: what does not fit into it is not begun."

    end: float  # on time.monotonic()

    @classmethod
    def of(cls, seconds: float) -> "Clock":
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:  # seconds
        return self.end - time.monotonic()

    def part(
        self,
        share: float,  # of what is left, in (0, 1]
    ) -> "Clock":
        return Clock.of(share * self.left)

    def check(
        self,
        what: str,
        seconds: float = 0.0,  # that it needs
    ) -> None:
        "TimeoutError where too little time is left for `what`."
        if self.left < seconds or self.left <= 0:
            raise TimeoutError(f"no time was left for {what}")


def now() -> float:
    "Seconds, when the device has done all that was asked of it."
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def once(call: Callable[[], Any], times: int = 1) -> float:
    "Seconds that `times` calls take together."
    started = now()
    for _ in range(times):
        call()
    return now() - started


def median(call: Callable[[], Any], times: int = 10, rounds: int = 5) -> float:
    "Seconds of one call: the median over blocks of `times` calls."
    return statistics.median(once(call, times) for _ in range(rounds)) / times


def attempt(call: Callable[[], Any]) -> Any:
    "What `call` returns, or why it does not, in a line."
    try:
        return call()
    except Exception as problem:
        print(
            f"{type(problem).__name__}: {problem}"[:2000], file=sys.stderr, flush=True
        )
        line = " ".join(f"{type(problem).__name__}: {problem}".split())
        return {"error": line[:200]}


def matrix_rate() -> float:
    "FLOP/s of a large product of bfloat16 matrices."
    a, b = torch.randn(2, MATRIX, MATRIX, device=DEVICE, dtype=torch.bfloat16)
    once(lambda: a @ b, REPEATS[0])
    return 2 * MATRIX**3 / median(lambda: a @ b, *REPEATS)


def copy_rate() -> float:
    "Bytes per second of a large copy on the device, read and written."
    a = torch.randint(256, (COPY,), device=DEVICE, dtype=torch.uint8)
    b = torch.empty_like(a)
    once(lambda: b.copy_(a), REPEATS[0])
    return 2 * COPY / median(lambda: b.copy_(a), *REPEATS)


def compiling(
    mode: str | bool,  # False, True, or how: "default" or "reduce-overhead"
) -> dict[str, Any]:
    "The fields of TrainConfig that ask for it. ValueError where it knows no modes."
    from ddpm_lit import TrainConfig

    modes = "compile_mode" in TrainConfig.__dataclass_fields__
    if isinstance(mode, bool):
        return dict(compile=mode)
    if not modes and mode != "default":
        raise ValueError(f"mode must be default, got {mode}: TrainConfig has no other")
    return dict(compile=True, compile_mode=mode) if modes else dict(compile=True)


def flops(
    net: nn.Module,  # on the meta device, so that no number is computed
    *inputs: Tensor,  # of one image, there too
    backward: bool = True,
) -> float:
    "Floating-point operations of a forward pass, and of a backward pass with it."
    math = torch.nn.attention.SDPBackend.MATH  # flash attention is not counted
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(math),
    ):
        out = net(*inputs)
        if backward:
            getattr(out, "sample", out).sum().backward()
    return float(counter.get_total_flops())


KINDS = [
    ("compiled kernels", r"triton|CompiledFxGraph|cpp_fused"),
    ("attention", r"attention|fmha|flash|sdpa"),
    ("optimiser and average", r"adam|multi_tensor|foreach|lerp|vector_norm"),
    (
        "convolutions and matrix products",
        r"conv|gemm|cutlass|xmma|wgrad|dgrad|fprop|nvjet|aten::(add)?mm|bmm|matmul",
    ),
    ("norms", r"norm"),
    (
        "copies and changes of layout",
        r"copy|aten::cat|CatArray|nchw|nhwc|transpose|memcpy|memset",
    ),
    ("element by element", r""),
]
# On a GPU these cover kernels that are counted themselves.
SPANS = ("##", "Optimizer", "Torch-Compiled", "ProfilerStep")


def _kernels(call: Callable[[], Any], times: int) -> list[tuple[float, int, str]]:
    "(Microseconds, calls, name) of each operation, the longest first."
    kinds = {"CPU", "CUDA"} if DEVICE == "cuda" else {"CPU"}
    with profile(activities=[getattr(ProfilerActivity, k) for k in kinds]) as seen:
        once(call, times)
    events = seen.key_averages()
    if DEVICE == "cpu":
        return sorted((e.self_cpu_time_total, e.count, e.key) for e in events)[::-1]
    there = torch.autograd.DeviceType.CUDA
    events = [e for e in events if e.device_type == there]
    events = [e for e in events if not e.key.startswith(SPANS)]
    return sorted((e.self_device_time_total, e.count, e.key) for e in events)[::-1]


def profiled(
    call: Callable[[], Any],  # warm
    times: int = 3,  # calls that are looked at
    rows: int = 12,
) -> dict:
    """Where the time of a call goes: kinds of work and the largest single operations,
    as shares of the time that the device was at work, and the share in which it was."""
    wall = once(call, times)  # the profiler itself would slow it
    kernels = _kernels(call, times)
    total, kinds = sum(spent for spent, *_ in kernels), {kind: 0.0 for kind, _ in KINDS}
    for spent, _, name in kernels:
        kind = next(kind for kind, words in KINDS if re.search(words, name, re.I))
        kinds[kind] += spent / total
    return dict(
        at_work=round(total / 1e6 / wall, 3),
        kernels_per_call=round(sum(count for _, count, _ in kernels) / times),
        kinds={kind: round(share, 3) for kind, share in kinds.items()},
        largest={
            name[:80]: round(spent / total, 3) for spent, _, name in kernels[:rows]
        },
    )
