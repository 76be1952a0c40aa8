# %% UNet
import torch
from ddpm_lit import UNet, UNetConfig

config = UNetConfig(8, 1, channels=16, multipliers=(1, 2), blocks=1, attention=())
model = UNet(config)
out = model(torch.zeros(4, 1, 8, 8), torch.tensor([1, 10, 100, 1000]))
print(tuple(out.shape), sum(p.numel() for p in model.parameters()))
# -> (4, 1, 8, 8) 163985
