# %% interpolate
from ddpm_lit import DDIM, interpolate, load_pretrained

run = load_pretrained("digits")
a, b = run.draw(n=2).split(1)
between = interpolate(run, a, b, [0, 0.25, 0.5, 0.75, 1], DDIM(steps=20))
print(tuple(between.shape))
# -> (5, 1, 8, 8)

# %% inpaint
import torch
from ddpm_lit import DDPM, inpaint, load_pretrained

run = load_pretrained("digits")
image, mask = run.draw(n=1), torch.ones(1, 1, 8, 8, dtype=torch.bool)
mask[..., :4] = False  # the left half is drawn anew
xT = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
filled = inpaint(run, image, mask, xT, DDPM(steps=50), resamples=2)
print(torch.equal(filled[mask], image[mask]))
# -> True

# %% image_to_image
import torch
from ddpm_lit import DDIM, image_to_image, load_pretrained

run = load_pretrained("digits")
image = run.draw(n=1)
eps = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
changed = image_to_image(run, image, run.schedule.T // 2, eps, DDIM(steps=20))
print(tuple(changed.shape))
# -> (1, 1, 8, 8)

# %% slerp
import torch
from ddpm_lit import slerp

a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
print(slerp(a, b, 0.5))
# -> tensor([[0.7071, 0.7071]])
