"What is public, in reading order."

__version__: str

# Mathematics
from .gaussian import (
    Gaussian as Gaussian,
    gaussian_kl as gaussian_kl,
)
from .schedule import (
    NoiseSchedule as NoiseSchedule,
    cosine_schedule as cosine_schedule,
    linear_schedule as linear_schedule,
    scaled_linear_schedule as scaled_linear_schedule,
    sigmoid_schedule as sigmoid_schedule,
    zero_terminal_snr as zero_terminal_snr,
)
from .forward import (
    Stream as Stream,
    draw_noise as draw_noise,
    keyed_generator as keyed_generator,
    keyed_seed as keyed_seed,
    q_sample as q_sample,
    q_marginal as q_marginal,
    transition as transition,
)
from .posterior import (
    q_posterior as q_posterior,
)
from .prediction import (
    EPS as EPS,
    V as V,
    X0 as X0,
    Denoiser as Denoiser,
    DynamicThreshold as DynamicThreshold,
    Model as Model,
    Parameterization as Parameterization,
    Prediction as Prediction,
    clip_prediction as clip_prediction,
    ddpm_loss as ddpm_loss,
    min_snr_weight as min_snr_weight,
)
from .elbo import (
    VLBTerms as VLBTerms,
    decoder_log_prob as decoder_log_prob,
    vlb_terms as vlb_terms,
    vlb_weight as vlb_weight,
)
from .oracle import (
    GaussianMixtureOracle as GaussianMixtureOracle,
)

# Sampling
from .ddpm import (
    DDPM as DDPM,
    Sampler as Sampler,
    Step as Step,
    sample as sample,
    sample_steps as sample_steps,
    time_pairs as time_pairs,
)
from .ddim import (
    DDIM as DDIM,
    ddim_encode as ddim_encode,
)
from .solvers import (
    DPMSolver as DPMSolver,
)
from .guidance import (
    classifier_guided as classifier_guided,
    guided as guided,
)
from .editing import (
    image_to_image as image_to_image,
    inpaint as inpaint,
    inpaint_steps as inpaint_steps,
    interpolate as interpolate,
    interpolate_at as interpolate_at,
    lerp as lerp,
    sample_with_shared_start as sample_with_shared_start,
    slerp as slerp,
    stack_steps as stack_steps,
    trajectory as trajectory,
    variance_preserving_mix as variance_preserving_mix,
)

# Images
from .images import (
    ImageData as ImageData,
    save_gif as save_gif,
    save_grid as save_grid,
    save_image as save_image,
)
from .image_files import (
    ImageFiles as ImageFiles,
)
from .datasets import (
    load_images as load_images,
)
from .numbered import (
    numbered_batches as numbered_batches,
    numbered_noise as numbered_noise,
)

# Training
from .configs import (
    PRESETS as PRESETS,
    TrainConfig as TrainConfig,
    UNetConfig as UNetConfig,
)
from .unet import (
    UNet as UNet,
)
from .runs import (
    Run as Run,
    RunFacts as RunFacts,
    load_pretrained as load_pretrained,
)
from .train import (
    Trainer as Trainer,
    TrainRecord as TrainRecord,
)
from .diffusers_exchange import (
    from_diffusers as from_diffusers,
    sampler_from_diffusers as sampler_from_diffusers,
    to_diffusers as to_diffusers,
)
from .finetune import (
    load_model as load_model,
    start_from as start_from,
)

# Quality
from .evaluate import (
    DigitClassifier as DigitClassifier,
    DigitReport as DigitReport,
    digit_report as digit_report,
    nearest_distances as nearest_distances,
)
from .classifier import (
    Classifier as Classifier,
    classifier_accuracy as classifier_accuracy,
    fit_classifier as fit_classifier,
    load_classifier as load_classifier,
)
from .distances import (
    Distances as Distances,
    features as features,
    set_distances as set_distances,
)
from .likelihood import (
    Bound as Bound,
    bits_per_dim as bits_per_dim,
)

# Using
from .generate import (
    DrawConfig as DrawConfig,
    draw_frames as draw_frames,
    draw_pixels as draw_pixels,
    encode_decode as encode_decode,
    inpaintings as inpaintings,
    interpolation as interpolation,
    optimized as optimized,
    trajectories as trajectories,
)
from .folders import (
    draw_folder as draw_folder,
)

# Reports
from .command.page import (
    run_page as run_page,
)
from .report import (
    evaluate_run as evaluate_run,
)
