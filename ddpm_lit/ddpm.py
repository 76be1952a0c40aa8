"08_ddpm"
import operator
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Callable, Literal, get_args

import torch
from torch import Tensor

from ddpm_lit.forward import draw_noise, stride
from ddpm_lit.posterior import q_posterior
from ddpm_lit.prediction import EPS, Parameterization, Prediction, clip_prediction
from ddpm_lit.schedule import NoiseSchedule, at_least_float32

Spacing = Literal["trailing", "leading", "linspace", "quadratic"]


def check_spacing(steps, spacing, timesteps, quad_end) -> None:
    "Refuse what is wrong for every T."
    if spacing not in get_args(Spacing): raise ValueError(f"spacing must be one of {', '.join(get_args(Spacing))}, got {spacing!r}")
    if steps is not None and (not hasattr(steps, "__index__") or steps < 1): raise ValueError(f"steps must be an integer >= 1 or None, got {steps!r}")
    if not 0 < quad_end <= 1: raise ValueError(f"quad_end must lie in (0, 1], got {quad_end!r}")
    if timesteps is None: return
    if not len(timesteps) or not all(hasattr(t, "__index__") for t in timesteps): raise ValueError(f"timesteps must be a non-empty sequence of integers, got {timesteps!r}")
    if any(b >= a for a, b in zip(timesteps, timesteps[1:])): raise ValueError(f"timesteps must be strictly decreasing, got {timesteps!r}")


def time_steps(T: int, steps: int | None = None, spacing: Spacing = "trailing", timesteps: Sequence[int] | None = None, quad_end: float = 1.0) -> list[int]:
    "The times t at which the network is asked, strictly decreasing, in 1..T."
    check_spacing(steps, spacing, timesteps, quad_end)
    if timesteps is not None:
        if timesteps[0] > T or timesteps[-1] < 1: raise ValueError(f"timesteps must lie in 1..{T}, got {timesteps!r}")
        return [operator.index(t) for t in timesteps]
    S = T if steps is None else operator.index(steps)
    if S > T: raise ValueError(f"steps must be at most T = {T}, got {S}")
    if S == 1: return [T]
    if spacing == "trailing": up = [round(Fraction((i + 1) * T, S)) for i in range(S)]
    if spacing == "leading": up = [1 + i * (T // S) for i in range(S)]
    if spacing == "linspace": up = [1 + round(Fraction(i * (T - 1), S - 1)) for i in range(S)]
    if spacing == "quadratic": up = _distinct([1 + int(quad_end * T * i**2 / (S - 1) ** 2) for i in range(S)], T)
    return up[::-1]


def _distinct(up: list[int], T: int) -> list[int]:
    "Push the non-decreasing integers `up` apart until each differs from its neighbour, within 1..T."
    for i in range(1, len(up)): up[i] = max(up[i], up[i - 1] + 1)
    return [min(t, T - (len(up) - 1 - i)) for i, t in enumerate(up)]


def time_pairs(T: int, steps: int | None = None, spacing: Spacing = "trailing", timesteps: Sequence[int] | None = None, quad_end: float = 1.0) -> list[tuple[int, int]]:
    "The strides (t, s) of a sampler: from each time to the next, the last to s = 0."
    down = time_steps(T, steps, spacing, timesteps, quad_end)
    return list(zip(down, down[1:] + [0]))


@dataclass(frozen=True, eq=False)
class Step:
    "What a sampler has after one step."
    t: int      # the time that was left, 1..T
    s: int      # the time that was reached, 0..t-1
    x: Tensor   # (B, ...) the sample at time s
    x0: Tensor  # (B, ...) the prediction x̂_0 that led there


@dataclass(frozen=True)
class DDPM:
    "Ancestral sampling: draw x_s from q(x_s | x_t, x̂_0) (DDPM Algorithm 2)."
    variance: Literal["posterior", "beta"] = "posterior"
    steps: int | None = None
    spacing: Spacing = "trailing"
    timesteps: Sequence[int] | None = None
    quad_end: float = 1.0

    def __post_init__(self):
        if self.variance not in ("posterior", "beta"): raise ValueError(f"variance must be 'posterior' or 'beta', got {self.variance!r}")
        check_spacing(self.steps, self.spacing, self.timesteps, self.quad_end)

    def pairs(self, schedule: NoiseSchedule) -> list[tuple[int, int]]:
        return time_pairs(schedule.T, self.steps, self.spacing, self.timesteps, self.quad_end)

    def step(self, schedule: NoiseSchedule, x: Tensor, pred: Prediction, t: int, s: int, noise: Tensor | None = None, previous=None) -> Tensor:
        post = q_posterior(schedule, pred.x0, x, t, s)
        if s == 0: return post.mean
        var = post.var if self.variance == "posterior" else stride(schedule, s, t)[1]
        return post.mean + var.sqrt() * noise


def predict(model: Callable, schedule: NoiseSchedule, x: Tensor, t: int, param: Parameterization = EPS, clip: tuple[float, float] | None = None, y=None) -> Prediction:
    "Ask the network about x_t, and read x̂_0 and ε̂ from its answer."
    times = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
    out = model(x, times) if y is None else model(x, times, y)
    pred = param.decode(schedule, out, x, t)
    return pred if clip is None else clip_prediction(schedule, pred, x, t, clip)


def check_signal(schedule: NoiseSchedule, t: int, param: Parameterization, clip: tuple[float, float] | None) -> None:
    snr = schedule.snr[t].item()
    if param != EPS or snr >= 1e-6: return
    if snr == 0: raise ValueError(f"param must be X0 or V where SNR = 0, got EPS at t = {t}: there x_t holds no signal from which x0 could be computed")
    if clip is None: warnings.warn(f"SNR is {snr:.1g} at t = {t}, so x0 = (x_t - noise) / {schedule.alpha_bar[t].sqrt().item():.1g} magnifies every error of an eps-prediction: pass clip=(-1, 1), or use V or X0.", stacklevel=3)


def sample_steps(model: Callable, schedule: NoiseSchedule, xT: Tensor, sampler=DDPM(), *, param: Parameterization = EPS, clip: tuple[float, float] | None = None, y=None, generator=None) -> Iterator[Step]:
    "Walk from x_T to x_0, yielding a Step after each stride."
    pairs = sampler.pairs(schedule)
    check_signal(schedule, pairs[0][0], param, clip)
    return _walk(model, schedule, xT, sampler, pairs, param, clip, y, generator)


def _walk(model, schedule, xT, sampler, pairs, param, clip, y, generator):
    x, previous = at_least_float32(xT.detach()), None
    for t, s in pairs:
        with torch.no_grad():
            pred = predict(model, schedule, x, t, param, clip, y)
            noise = draw_noise(x.shape, generator, x.device, x.dtype) if s and getattr(sampler, "stochastic", True) else None
            x = sampler.step(schedule, x, pred, t, s, noise, previous)
        previous = t, pred
        yield Step(t, s, x, pred.x0)


def sample(model: Callable, schedule: NoiseSchedule, xT: Tensor, sampler=DDPM(), *, param: Parameterization = EPS, clip: tuple[float, float] | None = None, y=None, generator=None) -> Tensor:
    "The x_0 at the end of `sample_steps`."
    for step in sample_steps(model, schedule, xT, sampler, param=param, clip=clip, y=y, generator=generator): pass
    return step.x
