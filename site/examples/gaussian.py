# %% Gaussian
import torch
from ddpm_lit import Gaussian

g = Gaussian(mean=torch.zeros(1, 3), var=torch.tensor(4.0))
print(g.sample(noise=torch.ones(1, 3)))
print(g.log_prob(torch.zeros(1, 3)))
# -> tensor([[2., 2., 2.]])
# -> tensor([[-1.6121, -1.6121, -1.6121]])

# %% gaussian_kl
import torch
from ddpm_lit import Gaussian, gaussian_kl

p = Gaussian(torch.zeros(2), torch.tensor(1.0))
q = Gaussian(torch.tensor([0.0, 1.0]), torch.tensor(1.0))
print(gaussian_kl(p, q))  # in nats: none, and one half
# -> tensor([0.0000, 0.5000])
