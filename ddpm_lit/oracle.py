"07_oracle"
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm_lit.prediction import EPS, Parameterization
from ddpm_lit.schedule import NoiseSchedule, at_least_float32, check_times, expand


@dataclass(frozen=True, eq=False)
class GaussianMixtureOracle:
    "The network that cannot be improved, for data from Σ_k w_k N(m_k, v_k I)."
    schedule: NoiseSchedule
    weights: Tensor    # (K,)
    means: Tensor      # (K, ...)
    variances: Tensor  # (K,)
    param: Parameterization = EPS

    def __post_init__(self):
        for name in ("weights", "means", "variances"): object.__setattr__(self, name, torch.as_tensor(getattr(self, name)).detach().to("cpu", torch.float64))
        object.__setattr__(self, "weights", self.weights / self.weights.sum())

    def _components(self, x, t):
        abar = self.schedule.at(t).reshape(-1, 1)
        var = abar * self.variances + 1 - abar
        gap = x[:, None] - expand2(abar.sqrt(), x) * self.means.to(x)
        return abar, var, gap

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        check_times(self.schedule, t, low=1)
        x = at_least_float32(x)
        abar = self.schedule.at(t).reshape(-1, 1)                      # (B, 1)
        var = abar * self.variances + 1 - abar                         # (B, K)
        tail = [1] * (x.ndim - 1)
        wide = lambda c: c.to(x).reshape(*c.shape, *tail)
        gap = x[:, None] - wide(abar.sqrt()) * self.means.to(x)        # (B, K, ...)
        logits = (self.weights.log() - var.log() * (self.means[0].numel() / 2)).to(x) - gap.square().flatten(2).sum(2) / (2 * var).to(x)
        if y is not None: logits = logits.masked_fill(torch.arange(len(self.weights), device=x.device) != y[:, None], -torch.inf)
        r = logits.softmax(1)
        x0 = (wide(r) * (self.means.to(x) + wide(abar.sqrt() * self.variances / var) * gap)).sum(1)
        eps = (wide(r) * wide((1 - abar).sqrt() / var) * gap).sum(1)
        return self.param.target(self.schedule, x0, eps, t)
