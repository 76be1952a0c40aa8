# %% Parameterization
from ddpm_lit import EPS, V, X0

for param in (EPS, X0, V):
    print(param.name, param.mix(0.8, 0.6))  # a and b, of a·x_0 + b·ε
# -> eps (0, 1)
# -> x0 (1, 0)
# -> v (-0.6, 0.8)

# %% EPS
import torch
from ddpm_lit import EPS, cosine_schedule, q_sample

schedule, x0, eps = cosine_schedule(), torch.zeros(1, 3), torch.ones(1, 3)
xt = q_sample(schedule, x0, 500, eps)
print(EPS.target(schedule, x0, eps, 500))
print(bool(EPS.decode(schedule, eps, xt, 500).x0.abs().max() < 1e-6))
# -> tensor([[1., 1., 1.]])
# -> True

# %% X0
import torch
from ddpm_lit import X0, cosine_schedule

schedule, x0, eps = cosine_schedule(), torch.zeros(1, 3), torch.ones(1, 3)
print(X0.target(schedule, x0, eps, 500))
# -> tensor([[0., 0., 0.]])

# %% V
import torch
from ddpm_lit import V, cosine_schedule

schedule, x0, eps = cosine_schedule(), torch.zeros(1, 3), torch.ones(1, 3)
target = V.target(schedule, x0, eps, 500)  # √ᾱ_t ε − √(1−ᾱ_t) x_0
print([f"{v:.2f}" for v in target[0]])
# -> ['0.70', '0.70', '0.70']

# %% Denoiser
import torch
from ddpm_lit import X0, Denoiser, cosine_schedule

model = lambda x, t: torch.full_like(x, 2.0)  # it always answers x_0 = 2
denoiser = Denoiser(model, cosine_schedule(), X0, clip=(-1, 1))
seen = denoiser(torch.zeros(1, 3), 500)
print(seen.x0, seen.eps < 0)
# -> tensor([[1., 1., 1.]]) tensor([[True, True, True]])

# %% ddpm_loss
import torch
from ddpm_lit import cosine_schedule, ddpm_loss, draw_noise

model = lambda x, t: torch.zeros_like(x)  # no noise at all, it says
x0, t = torch.zeros(16, 3, 8, 8), torch.arange(1, 17)
eps = draw_noise(x0.shape, torch.Generator().manual_seed(0))
print(f"{ddpm_loss(model, cosine_schedule(), x0, t, eps):.2f}")
# -> 1.00

# %% min_snr_weight
import torch
from ddpm_lit import cosine_schedule, min_snr_weight

weight = min_snr_weight(cosine_schedule(), torch.tensor([1, 250, 999]))
print([f"{w:.3f}" for w in weight])
# -> ['0.000', '0.903', '1.000']
