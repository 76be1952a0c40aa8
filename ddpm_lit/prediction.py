"05_prediction"
from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

from ddpm_lit.forward import q_sample
from ddpm_lit.schedule import NoiseSchedule, at_least_float32, check_times, expand


@dataclass(frozen=True, eq=False)
class Prediction:
    "The clean image and the noise that a network sees in x_t: √ᾱ_t x̂_0 + √(1−ᾱ_t) ε̂ = x_t."
    x0: Tensor   # (B, ...) x̂_0
    eps: Tensor  # (B, ...) ε̂


@dataclass(frozen=True)
class Parameterization:
    "What a network is trained to predict: a·x_0 + b·ε."
    name: str
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # signal √ᾱ_t and noise √(1−ᾱ_t) -> (a, b), float64

    def target(self, schedule: NoiseSchedule, x0: Tensor, eps: Tensor, t: int | Tensor) -> Tensor:
        "a·x_0 + b·ε, what the network should answer."
        abar_t = schedule.at(t)
        a, b = self.mix(abar_t.sqrt(), (1 - abar_t).sqrt())
        return expand(a, x0) * at_least_float32(x0) + expand(b, eps) * at_least_float32(eps)

    def decode(self, schedule: NoiseSchedule, out: Tensor, xt: Tensor, t: int | Tensor) -> Prediction:
        "Solve a x̂_0 + b ε̂ = out and √ᾱ_t x̂_0 + √(1−ᾱ_t) ε̂ = x_t for x̂_0 and ε̂."
        if out.shape != xt.shape: raise ValueError(f"the model's output must have the shape of xt, {tuple(xt.shape)}, got {tuple(out.shape)}")
        abar_t = schedule.at(t)
        signal, noise = abar_t.sqrt(), (1 - abar_t).sqrt()
        a, b = self.mix(signal, noise)
        det = signal * b - noise * a
        out, xt = at_least_float32(out), at_least_float32(xt)
        return Prediction(expand(b / det, xt) * xt - expand(noise / det, xt) * out, expand(signal / det, xt) * out - expand(a / det, xt) * xt)


EPS = Parameterization("eps", lambda signal, noise: (torch.zeros_like(signal), torch.ones_like(signal)))
X0 = Parameterization("x0", lambda signal, noise: (torch.ones_like(signal), torch.zeros_like(signal)))
V = Parameterization("v", lambda signal, noise: (-noise, signal))
PARAMETERIZATIONS = {p.name: p for p in (EPS, X0, V)}


def clip_prediction(schedule: NoiseSchedule, pred: Prediction, xt: Tensor, t: int | Tensor, clip: tuple[float, float]) -> Prediction:
    "Clamp x̂_0 to the range `clip` and re-derive ε̂ = (x_t − √ᾱ_t x̂_0)/√(1−ᾱ_t), so that both still make x_t."
    abar_t = schedule.at(t)
    x0 = pred.x0.clamp(*clip)
    return Prediction(x0, (at_least_float32(xt) - expand(abar_t.sqrt(), xt) * x0) / expand((1 - abar_t).sqrt(), xt))


def ddpm_loss(model, schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor, param: Parameterization = EPS, y=None, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    "‖target − model(x_t, t)‖², averaged over pixels, times `weight` (B,) (DDPM eq. 14)."
    xt = q_sample(schedule, x0, t, eps)
    out = model(xt, t) if y is None else model(xt, t, y)
    loss = (at_least_float32(out) - param.target(schedule, x0, eps, t)).square().flatten(1).mean(1)
    if weight is not None: loss = loss * weight.to(loss)
    return loss.mean() if reduction == "mean" else loss
