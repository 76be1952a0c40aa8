# %% load_images
from ddpm_lit import load_images

digits = load_images("digits")
print(tuple(digits.images.shape), digits.levels, digits.labels[:5].tolist())
# -> (1347, 1, 8, 8) 17 [0, 1, 2, 3, 4]
