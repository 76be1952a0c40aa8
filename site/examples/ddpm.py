# %% DDPM
import torch
from ddpm_lit import DDPM, load_pretrained, sample

run = load_pretrained("digits")
xT = torch.randn(4, *run.shape, generator=torch.Generator().manual_seed(0))
x0 = sample(run, xT, DDPM(steps=100))
print(tuple(x0.shape), bool(x0.abs().max() <= 1))
# -> (4, 1, 8, 8) True

# %% sample
import torch
from ddpm_lit import DDIM, load_pretrained, sample

run = load_pretrained("digits")
xT = torch.randn(4, *run.shape, generator=torch.Generator().manual_seed(0))
x0 = sample(run, xT, DDIM(steps=20), y=torch.tensor([0, 1, 2, 3]))
print(tuple(x0.shape))
# -> (4, 1, 8, 8)

# %% sample_steps
import torch
from ddpm_lit import DDIM, load_pretrained, sample_steps

run = load_pretrained("digits")
xT = torch.randn(1, *run.shape, generator=torch.Generator().manual_seed(0))
for step in sample_steps(run, xT, DDIM(steps=4)):
    print(step.t, step.s, tuple(step.x0.shape))
# -> 1000 750 (1, 1, 8, 8)
# -> 750 500 (1, 1, 8, 8)
# -> 500 250 (1, 1, 8, 8)
# -> 250 0 (1, 1, 8, 8)

# %% time_pairs
from ddpm_lit import time_pairs

print(time_pairs(1000, steps=4))
print(time_pairs(1000, steps=4, spacing="leading"))
# -> [(1000, 750), (750, 500), (500, 250), (250, 0)]
# -> [(751, 501), (501, 251), (251, 1), (1, 0)]
