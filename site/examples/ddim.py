# %% DDIM
import torch
from ddpm_lit import DDIM, load_pretrained, sample

run = load_pretrained("digits")
xT = torch.randn(4, *run.shape, generator=torch.Generator().manual_seed(0))
twice = [sample(run, xT, DDIM(steps=20)) for _ in range(2)]
print(torch.equal(*twice), DDIM(20).stochastic, DDIM(20, eta=1.0).stochastic)
# -> True False True

# %% ddim_encode
import torch
from ddpm_lit import DDIM, ddim_encode, load_pretrained, sample

run, sampler = load_pretrained("digits"), DDIM(steps=100)
image = run.draw(n=1)
back = sample(run, ddim_encode(run, image, sampler), sampler)
print(tuple(back.shape), bool((back - image).abs().mean() < 0.1))
# -> (1, 1, 8, 8) True
