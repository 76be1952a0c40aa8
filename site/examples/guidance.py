# %% guided
import torch
from ddpm_lit import DDIM, guided, load_pretrained, sample

run = load_pretrained("digits")
labels = torch.tensor([3, 3, 7, 7])
xT = torch.randn(4, *run.shape, generator=torch.Generator().manual_seed(0))
x0 = sample(guided(run, labels, scale=2.0), xT, DDIM(steps=20))
print(tuple(x0.shape))
# -> (4, 1, 8, 8)
