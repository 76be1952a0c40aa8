# %% GaussianMixtureOracle
import torch
from ddpm_lit import DDIM, Denoiser, GaussianMixtureOracle, cosine_schedule, sample

schedule, means = cosine_schedule(), torch.tensor([[-1.0], [1.0]])
oracle = GaussianMixtureOracle(schedule, [0.5, 0.5], means, [0.01, 0.01])
xT = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
x0 = sample(Denoiser(oracle, schedule, clip=(-2, 2)), xT, DDIM(50))
print(f"mean of |x_0|: {x0.abs().mean():.1f}, above 0: {(x0 > 0).float().mean():.1f}")
# -> mean of |x_0|: 1.0, above 0: 0.5
