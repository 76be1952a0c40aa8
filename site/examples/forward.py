# %% q_sample
import torch
from ddpm_lit import cosine_schedule, draw_noise, q_sample

x0 = torch.zeros(2, 3, 8, 8)  # two grey images
eps = draw_noise(x0.shape, torch.Generator().manual_seed(0))
xt = q_sample(cosine_schedule(), x0, torch.tensor([1, 1000]), eps)
print(tuple(xt.shape), [f"{x.std():.2f}" for x in xt])
# -> (2, 3, 8, 8) ['0.01', '0.95']

# %% draw_noise
import torch
from ddpm_lit import Stream, draw_noise, keyed_generator

keys = [keyed_generator(0, Stream.DRAW, i) for i in range(3)]
three = draw_noise((3, 1, 8, 8), keys)
alone = draw_noise((1, 1, 8, 8), [keyed_generator(0, Stream.DRAW, 2)])
print(torch.equal(three[2:], alone))  # whatever the batch
# -> True

# %% transition
from ddpm_lit import linear_schedule, transition

alpha, beta = transition(linear_schedule(), s=400, t=500)
print(f"{alpha:.4f} {beta:.4f} {alpha + beta:.4f}")
# -> 0.4027 0.5973 1.0000

# %% keyed_generator
import torch
from ddpm_lit import Stream, keyed_generator

first = torch.rand(2, generator=keyed_generator(7, Stream.STEP, 0))
again = torch.rand(2, generator=keyed_generator(7, Stream.STEP, 0))
print(torch.equal(first, again))
# -> True
