# %% draw_pixels
from ddpm_lit import DDIM, DrawConfig, draw_pixels, load_pretrained

run = load_pretrained("digits")
pixels = draw_pixels(run, DrawConfig(DDIM(20), seed=1, labels=[0, 1]), n=4)
print(pixels.dtype, tuple(pixels.shape))
# -> torch.uint8 (4, 1, 8, 8)
