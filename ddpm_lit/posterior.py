"04_posterior"
from torch import Tensor

from ddpm_lit.forward import stride
from ddpm_lit.gaussian import Gaussian
from ddpm_lit.schedule import NoiseSchedule, at_least_float32, expand


def q_posterior(schedule: NoiseSchedule, x0: Tensor, xt: Tensor, t: int | Tensor, s: int | Tensor | None = None) -> Gaussian:
    "q(x_s | x_t, x_0) for 0 <= s < t, by default s = t − 1 (DDPM eqs. 6 and 7)."
    if x0.shape != xt.shape: raise ValueError(f"x0 must have the shape of xt, {tuple(xt.shape)}, got {tuple(x0.shape)}")
    s = t - 1 if s is None else s
    alpha, beta = stride(schedule, s, t)
    abar_s, abar_t = schedule.at(s), schedule.at(t)
    c0, ct = abar_s.sqrt() * beta / (1 - abar_t), alpha.sqrt() * (1 - abar_s) / (1 - abar_t)
    mean = expand(c0, x0) * at_least_float32(x0) + expand(ct, xt) * at_least_float32(xt)
    return Gaussian(mean, expand((1 - abar_s) * beta / (1 - abar_t), xt))
