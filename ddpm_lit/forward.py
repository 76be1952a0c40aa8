"03_forward"
from typing import Sequence

import torch
from torch import Tensor

from ddpm_lit.schedule import NoiseSchedule, at_least_float32, check_times, expand


def q_sample(schedule: NoiseSchedule, x0: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
    "x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε, in float32 or better (DDPM eq. 4)."
    if eps.shape != x0.shape: raise ValueError(f"eps must have the shape of x0, {tuple(x0.shape)}, got {tuple(eps.shape)}")
    if isinstance(t, Tensor) and len(t) != len(x0): raise ValueError(f"t must have one time for each of the {len(x0)} images of x0, got {len(t)}")
    abar_t = schedule.at(t)
    return expand(abar_t.sqrt(), x0) * at_least_float32(x0) + expand((1 - abar_t).sqrt(), x0) * at_least_float32(eps)


def stride(schedule: NoiseSchedule, s: int | Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
    "α = ᾱ_t/ᾱ_s and β = (ᾱ_s − ᾱ_t)/ᾱ_s in float64: q(x_t | x_s) = N(√α x_s, β I) for 0 <= s < t."
    if not bool((torch.as_tensor(s) < torch.as_tensor(t)).all() if not isinstance(t, Tensor) or t.device.type == "cpu" else True): raise ValueError(f"s must be earlier than t, got s = {s} and t = {t}")
    abar_s, abar_t = schedule.at(s), schedule.at(t)
    return abar_t / abar_s, (abar_s - abar_t) / abar_s


def draw_noise(
    shape: Sequence[int],                                             # (B, ...)
    generator: torch.Generator | Sequence[torch.Generator] | None = None,  # one for all, or one per image; None is torch's own
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:                                                          # `shape`, standard normal
    "Standard normal noise. With one generator per image, image i gets the same noise whatever the batch."
    if generator is None: return torch.randn(shape, device=device, dtype=dtype)
    if isinstance(generator, torch.Generator): return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype).to(device)
    if len(generator) != shape[0]: raise ValueError(f"generator must be one, or one for each of the {shape[0]} images, got {len(generator)}")
    return torch.stack([torch.randn(shape[1:], generator=g, device=g.device, dtype=dtype) for g in generator]).to(device)
