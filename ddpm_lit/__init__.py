"Denoising diffusion where every formula is proved on the page that explains it. What is public, in reading order."

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# A module is imported when one of its names is first asked for: the command answers
# `--help` without waiting for torch.
_NAMES = {
    "gaussian": "Gaussian gaussian_kl",
    "schedule": (
        "NoiseSchedule cosine_schedule linear_schedule scaled_linear_schedule "
        "sigmoid_schedule zero_terminal_snr"
    ),
    "forward": "draw_noise q_sample stride",
    "posterior": "q_posterior",
    "prediction": (
        "EPS V X0 DynamicThreshold Parameterization Prediction clip_prediction "
        "ddpm_loss min_snr_weight"
    ),
    "elbo": "VLBTerms decoder_log_prob vlb_terms vlb_weight",
    "oracle": "GaussianMixtureOracle",
    "ddpm": "DDPM Step sample sample_steps time_pairs",
    "ddim": "DDIM ddim_encode",
    "solvers": "DPMSolver",
    "guidance": "classifier_guided guided",
    "editing": (
        "image_to_image inpaint inpaint_steps interpolate interpolate_at lerp mix "
        "shared slerp strips trajectory"
    ),
    "data": "ImageData save_gif save_grid save_image",
    "files": "ImageFiles",
    "sets": "load_images",
    "unet": "UNet UNetConfig",
    "runs": "Run load_pretrained save_run",
    "train": "TrainConfig Trainer TrainRecord",
    "interop": "from_diffusers sampler_from_diffusers to_diffusers",
    "start": "load_model start_from",
    "evaluate": "DigitJudge DigitReport digit_report nearest_distances",
    "features": (
        "Classifier Distances accuracy_score distances fit_classifier "
        "load_classifier"
    ),
    "likelihood": "Bound bits_per_dim",
    "drawing": (
        "draw draw_folder encode_decode fast film inpaintings interpolation "
        "trajectories"
    ),
    "report": "evaluate_run",
    "command.page": "run_page",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:  # the same names, for editors and type checkers
    from ddpm_lit.gaussian import Gaussian as Gaussian, gaussian_kl as gaussian_kl
    from ddpm_lit.schedule import (
        NoiseSchedule as NoiseSchedule, cosine_schedule as cosine_schedule,
        linear_schedule as linear_schedule, scaled_linear_schedule as
        scaled_linear_schedule, sigmoid_schedule as sigmoid_schedule,
        zero_terminal_snr as zero_terminal_snr,
    )
    from ddpm_lit.forward import (
        draw_noise as draw_noise, q_sample as q_sample, stride as stride,
    )
    from ddpm_lit.posterior import q_posterior as q_posterior
    from ddpm_lit.prediction import (
        EPS as EPS, V as V, X0 as X0, DynamicThreshold as DynamicThreshold,
        Parameterization as Parameterization, Prediction as Prediction,
        clip_prediction as clip_prediction, ddpm_loss as ddpm_loss,
        min_snr_weight as min_snr_weight,
    )
    from ddpm_lit.elbo import (
        VLBTerms as VLBTerms, decoder_log_prob as decoder_log_prob, vlb_terms as
        vlb_terms, vlb_weight as vlb_weight,
    )
    from ddpm_lit.oracle import GaussianMixtureOracle as GaussianMixtureOracle
    from ddpm_lit.ddpm import (
        DDPM as DDPM, Step as Step, sample as sample, sample_steps as
        sample_steps, time_pairs as time_pairs,
    )
    from ddpm_lit.ddim import DDIM as DDIM, ddim_encode as ddim_encode
    from ddpm_lit.solvers import DPMSolver as DPMSolver
    from ddpm_lit.guidance import (
        classifier_guided as classifier_guided, guided as guided,
    )
    from ddpm_lit.editing import (
        image_to_image as image_to_image, inpaint as inpaint, inpaint_steps as
        inpaint_steps, interpolate as interpolate, interpolate_at as
        interpolate_at, lerp as lerp, mix as mix, shared as shared, slerp as
        slerp, strips as strips, trajectory as trajectory,
    )
    from ddpm_lit.data import (
        ImageData as ImageData, save_gif as save_gif, save_grid as save_grid,
        save_image as save_image,
    )
    from ddpm_lit.files import ImageFiles as ImageFiles
    from ddpm_lit.sets import load_images as load_images
    from ddpm_lit.unet import UNet as UNet, UNetConfig as UNetConfig
    from ddpm_lit.runs import (
        Run as Run, load_pretrained as load_pretrained, save_run as save_run,
    )
    from ddpm_lit.train import (
        TrainConfig as TrainConfig, Trainer as Trainer, TrainRecord as
        TrainRecord,
    )
    from ddpm_lit.interop import (
        from_diffusers as from_diffusers, sampler_from_diffusers as
        sampler_from_diffusers, to_diffusers as to_diffusers,
    )
    from ddpm_lit.start import load_model as load_model, start_from as start_from
    from ddpm_lit.evaluate import (
        DigitJudge as DigitJudge, DigitReport as DigitReport, digit_report as
        digit_report, nearest_distances as nearest_distances,
    )
    from ddpm_lit.features import (
        Classifier as Classifier, Distances as Distances, accuracy_score as
        accuracy_score, distances as distances, fit_classifier as
        fit_classifier, load_classifier as load_classifier,
    )
    from ddpm_lit.likelihood import Bound as Bound, bits_per_dim as bits_per_dim
    from ddpm_lit.drawing import (
        draw as draw, draw_folder as draw_folder, encode_decode as
        encode_decode, fast as fast, film as film, inpaintings as inpaintings,
        interpolation as interpolation, trajectories as trajectories,
    )
    from ddpm_lit.report import evaluate_run as evaluate_run
    from ddpm_lit.command.page import run_page as run_page
