# %% ImageData
import torch
from ddpm_lit import ImageData

images = torch.tensor([[[[0, 255]]], [[[255, 0]]]], dtype=torch.uint8)
data = ImageData(images, labels=torch.tensor([0, 1]))
print(data.shape, data.float().flatten().tolist())
# -> (2, 1, 1, 2) [-1.0, 1.0, 1.0, -1.0]

# %% save_grid
import torch
from ddpm_lit import save_grid
from PIL import Image

save_grid(torch.zeros(6, 1, 8, 8), "grid.png", columns=3)
print(Image.open("grid.png").size)
# -> (196, 130)
