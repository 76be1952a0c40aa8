"Denoising diffusion where every formula is proved on the page that explains it. What is public, in reading order."
__version__ = "0.1.0"

from ddpm_lit.gaussian import Gaussian, gaussian_kl
from ddpm_lit.schedule import NoiseSchedule, cosine_schedule, linear_schedule, scaled_linear_schedule, sigmoid_schedule, zero_terminal_snr
from ddpm_lit.forward import Stream, draw_noise, keyed_generator, q_sample, transition
from ddpm_lit.posterior import q_posterior
from ddpm_lit.prediction import EPS, V, X0, Denoiser, DynamicThreshold, Model, Parameterization, Prediction, clip_prediction, ddpm_loss, min_snr_weight
from ddpm_lit.elbo import VLBTerms, decoder_log_prob, vlb_terms, vlb_weight
from ddpm_lit.oracle import GaussianMixtureOracle
from ddpm_lit.ddpm import DDPM, Sampler, Step, sample, sample_steps, time_pairs
from ddpm_lit.ddim import DDIM, ddim_encode
from ddpm_lit.solvers import DPMSolver
from ddpm_lit.guidance import classifier_guided, guided
from ddpm_lit.editing import image_to_image, inpaint, inpaint_steps, interpolate, interpolate_at, lerp, sample_with_shared_start, slerp, stack_steps, trajectory, variance_preserving_mix
from ddpm_lit.data import ImageData, save_gif, save_grid, save_image
from ddpm_lit.files import ImageFiles
from ddpm_lit.sets import load_images
from ddpm_lit.unet import UNet, UNetConfig
from ddpm_lit.runs import Run, load_pretrained, save_run
from ddpm_lit.train import TrainConfig, Trainer, TrainRecord
from ddpm_lit.interop import from_diffusers, sampler_from_diffusers, to_diffusers
from ddpm_lit.start import load_model, start_from
from ddpm_lit.evaluate import DigitJudge, DigitReport, digit_report, nearest_distances
from ddpm_lit.features import Classifier, Distances, accuracy_score, distances, fit_classifier, load_classifier
from ddpm_lit.likelihood import Bound, bits_per_dim
from ddpm_lit.drawing import draw, draw_folder, draw_frames, encode_decode, inpaintings, interpolation, optimized, trajectories
from ddpm_lit.summary import run_page
from ddpm_lit.report import evaluate_run
