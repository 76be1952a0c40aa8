"Denoising diffusion where every formula is proved on the page that explains it."
__version__ = "0.1.0"

from ddpm_lit.gaussian import Gaussian, gaussian_kl
from ddpm_lit.schedule import NoiseSchedule, cosine_schedule, linear_schedule, scaled_linear_schedule
from ddpm_lit.forward import q_sample
from ddpm_lit.posterior import q_posterior
from ddpm_lit.prediction import EPS, V, X0, ddpm_loss
