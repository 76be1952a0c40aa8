"""Denoising diffusion where every formula is proved on the page that explains it. What is
public, in reading order."""

__version__ = "0.1.0"

# Mathematics
from ddpm_lit.gaussian import Gaussian, gaussian_kl
from ddpm_lit.schedule import NoiseSchedule, cosine_schedule, linear_schedule
from ddpm_lit.schedule import scaled_linear_schedule, sigmoid_schedule
from ddpm_lit.schedule import zero_terminal_snr
from ddpm_lit.forward import Stream, draw_noise, keyed_generator, keyed_seed, q_sample
from ddpm_lit.forward import transition
from ddpm_lit.posterior import q_posterior
from ddpm_lit.prediction import EPS, V, X0, Denoiser, DynamicThreshold, Model
from ddpm_lit.prediction import Parameterization, Prediction, clip_prediction, ddpm_loss
from ddpm_lit.prediction import min_snr_weight
from ddpm_lit.elbo import VLBTerms, decoder_log_prob, vlb_terms, vlb_weight
from ddpm_lit.oracle import GaussianMixtureOracle
# Sampling
from ddpm_lit.ddpm import DDPM, Sampler, Step, sample, sample_steps, time_pairs
from ddpm_lit.ddim import DDIM, ddim_encode
from ddpm_lit.solvers import DPMSolver
from ddpm_lit.guidance import classifier_guided, guided
from ddpm_lit.editing import image_to_image, inpaint, inpaint_steps, interpolate
from ddpm_lit.editing import interpolate_at, lerp, sample_with_shared_start, slerp
from ddpm_lit.editing import stack_steps, trajectory, variance_preserving_mix
# Images
from ddpm_lit.images import ImageData, save_gif, save_grid, save_image
from ddpm_lit.image_files import ImageFiles
from ddpm_lit.datasets import load_images
from ddpm_lit.generate import numbered_batches, numbered_noise
# Training
from ddpm_lit.unet import UNet, UNetConfig
from ddpm_lit.runs import Run, load_pretrained
from ddpm_lit.train import TrainConfig, Trainer, TrainRecord
from ddpm_lit.diffusers_exchange import from_diffusers, sampler_from_diffusers
from ddpm_lit.diffusers_exchange import to_diffusers
from ddpm_lit.finetune import load_model, start_from
# Quality
from ddpm_lit.evaluate import DigitJudge, DigitReport, digit_report, nearest_distances
from ddpm_lit.features import Classifier, Distances, accuracy_score, distances
from ddpm_lit.features import fit_classifier, load_classifier
from ddpm_lit.likelihood import Bound, bits_per_dim
# Using
from ddpm_lit.drawing import draw_folder, draw_frames, encode_decode, inpaintings
from ddpm_lit.drawing import interpolation, optimized, trajectories
# Reports
from ddpm_lit.summary import run_page
from ddpm_lit.report import evaluate_run

__all__ = [
    # Mathematics
    "Gaussian", "gaussian_kl",
    "NoiseSchedule", "cosine_schedule", "linear_schedule", "scaled_linear_schedule",
    "sigmoid_schedule", "zero_terminal_snr",
    "Stream", "draw_noise", "keyed_generator", "keyed_seed", "q_sample",
    "transition",
    "q_posterior",
    "EPS", "V", "X0", "Denoiser", "DynamicThreshold", "Model", "Parameterization",
    "Prediction", "clip_prediction", "ddpm_loss", "min_snr_weight",
    "VLBTerms", "decoder_log_prob", "vlb_terms", "vlb_weight",
    "GaussianMixtureOracle",
    # Sampling
    "DDPM", "Sampler", "Step", "sample", "sample_steps", "time_pairs",
    "DDIM", "ddim_encode",
    "DPMSolver",
    "classifier_guided", "guided",
    "image_to_image", "inpaint", "inpaint_steps", "interpolate", "interpolate_at",
    "lerp", "sample_with_shared_start", "slerp", "stack_steps", "trajectory",
    "variance_preserving_mix",
    # Images
    "ImageData", "save_gif", "save_grid", "save_image",
    "ImageFiles",
    "load_images",
    "numbered_batches", "numbered_noise",
    # Training
    "UNet", "UNetConfig",
    "Run", "load_pretrained",
    "TrainConfig", "Trainer", "TrainRecord",
    "from_diffusers", "sampler_from_diffusers", "to_diffusers",
    "load_model", "start_from",
    # Quality
    "DigitJudge", "DigitReport", "digit_report", "nearest_distances",
    "Classifier", "Distances", "accuracy_score", "distances", "fit_classifier",
    "load_classifier",
    "Bound", "bits_per_dim",
    # Using
    "draw_folder", "draw_frames", "encode_decode", "inpaintings", "interpolation",
    "optimized", "trajectories",
    # Reports
    "run_page",
    "evaluate_run",
]
