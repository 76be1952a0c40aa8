"01_gaussian"
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Gaussian:
    "The Gaussian N(mean, var·I), independent in every coordinate."
    mean: Tensor  # any shape
    var: Tensor   # >= 0, broadcasts against `mean`; 0 is a point mass

    def sample(self, noise: Tensor) -> Tensor:
        "mean + √var · noise, for standard normal `noise` of the mean's shape (reparameterisation)."
        return self.mean + self.var.sqrt() * noise

    def log_prob(self, x: Tensor) -> Tensor:
        "log density at `x` in nats, per coordinate; `var` must be positive."
        return -0.5 * ((x - self.mean) ** 2 / self.var + self.var.log() + math.log(2 * math.pi))


def gaussian_kl(p: Gaussian, q: Gaussian) -> Tensor:
    "KL(p‖q) in nats, per coordinate; both variances must be positive."
    return 0.5 * (q.var.log() - p.var.log() + (p.var + (p.mean - q.mean) ** 2) / q.var - 1)
