"09_ddim"
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_lit.ddpm import Spacing, check_spacing, predict, time_pairs
from ddpm_lit.forward import stride
from ddpm_lit.prediction import EPS, Parameterization, Prediction, clip_prediction
from ddpm_lit.schedule import NoiseSchedule, at_least_float32


@dataclass(frozen=True)
class DDIM:
    "x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s−σ²) ε̂ + σ z with σ = η √β̃ (DDIM eqs. 12 and 16)."
    steps: int | None = 50
    eta: float = 0.0
    spacing: Spacing = "trailing"
    timesteps: Sequence[int] | None = None
    quad_end: float = 1.0

    def __post_init__(self):
        if not 0 <= self.eta <= 1: raise ValueError(f"eta must lie in [0, 1], got {self.eta!r}")
        check_spacing(self.steps, self.spacing, self.timesteps, self.quad_end)

    @property
    def stochastic(self) -> bool: return self.eta > 0

    def pairs(self, schedule: NoiseSchedule) -> list[tuple[int, int]]:
        return time_pairs(schedule.T, self.steps, self.spacing, self.timesteps, self.quad_end)

    def step(self, schedule: NoiseSchedule, x: Tensor, pred: Prediction, t: int, s: int, noise: Tensor | None = None, previous=None) -> Tensor:
        (alpha, beta), abar_s, abar_t = stride(schedule, s, t), schedule.at(s), schedule.at(t)
        var = self.eta**2 * beta * (1 - abar_s) / (1 - abar_t)
        rest = (1 - abar_s) * (1 - self.eta**2 + self.eta**2 * alpha * (1 - abar_s) / (1 - abar_t))
        xs = abar_s.sqrt() * pred.x0 + rest.sqrt() * pred.eps
        return xs if noise is None or var == 0 else xs + var.sqrt() * noise


@torch.no_grad()
def ddim_encode(model: Callable, schedule: NoiseSchedule, x0: Tensor, steps: int | None = 50, spacing: Spacing = "trailing", timesteps: Sequence[int] | None = None, *, param: Parameterization = EPS, clip: tuple[float, float] | None = None, y=None) -> Tensor:
    "Walk from x_0 up to x_T, the way that DDIM with η = 0 comes down."
    x = at_least_float32(x0)
    for t, s in reversed(time_pairs(schedule.T, steps, spacing, timesteps)):
        eps = predict(model, schedule, x, t, param, None, y).eps
        abar_s, abar_t = schedule.at(s), schedule.at(t)
        pred = Prediction((x - (1 - abar_s).sqrt() * eps) / abar_s.sqrt(), eps)
        if clip is not None and s: pred = clip_prediction(schedule, pred, x, s, clip)
        x = abar_t.sqrt() * pred.x0 + (1 - abar_t).sqrt() * pred.eps
    return x
