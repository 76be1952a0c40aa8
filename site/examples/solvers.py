# %% DPMSolver
import torch
from ddpm_lit import DPMSolver, load_pretrained, sample

run = load_pretrained("digits")
xT = torch.randn(4, *run.shape, generator=torch.Generator().manual_seed(0))
x0 = sample(run, xT, DPMSolver(steps=10))
print(tuple(x0.shape), DPMSolver(steps=3).pairs(run.schedule))
# -> (4, 1, 8, 8) [(1000, 504), (504, 1), (1, 0)]
