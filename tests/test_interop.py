"""Exchange with diffusers: networks with the same weights answer alike, folders open on
both sides, and what would be another model is refused by name."""

import json
from dataclasses import replace

import pytest
import torch
from strategies import images

from ddpm_lit import DDIM, DDPM, EPS, V, X0, Denoiser, DynamicThreshold, UNet
from ddpm_lit import UNetConfig
from ddpm_lit import cosine_schedule, from_diffusers, linear_schedule, sample
from ddpm_lit import sampler_from_diffusers, to_diffusers, zero_terminal_snr
from ddpm_lit.diffusers_exchange import _ours, _shape
from ddpm_lit.runs import Run
from ddpm_lit.configs import PRESETS

diffusers = pytest.importorskip("diffusers")
diffusers.utils.logging.disable_progress_bar()
diffusers.utils.logging.set_verbosity_error()

DDPM_FORM = dict(
    norm_eps=1e-6,
    downsample_padding=0,
    flip_sin_to_cos=False,
    freq_shift=1,
    attention_head_dim=None,
)
SHAPES = {
    "as google/ddpm-cifar10-32": dict(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=2,
        norm_num_groups=8,
        dropout=0.1,
        down_block_types=(
            "DownBlock2D",
            "AttnDownBlock2D",
            "DownBlock2D",
            "DownBlock2D",
        ),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    ),
    "as google/ddpm-celebahq-256": dict(
        sample_size=64,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 16, 32, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
    ),
    "grey, two heads": dict(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(64, 64),
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=32,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ),
    "labels": dict(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        num_class_embeds=11,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ),
    "groups of two channels": dict(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ),
    "more heads where it is wider": dict(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        time_embedding_dim=64,
        down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"),
    ),
    "scale and shift": dict(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        layers_per_block=2,
        norm_num_groups=4,
        resnet_time_scale_shift="scale_shift",
        attn_norm_num_groups=4,
        down_block_types=("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D"),
    ),
}


def theirs(name, **changes):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**(DDPM_FORM | SHAPES[name] | changes)).eval()


# the settings of google/ddpm-cifar10-32, and of -celebahq-256, -church-256,
# -bedroom-256 and -cat-256, which are the same; the parameters
PUBLISHED = {
    "32": (
        DDPM_FORM
        | dict(
            sample_size=32,
            in_channels=3,
            out_channels=3,
            block_out_channels=(128, 256, 256, 256),
            layers_per_block=2,
            norm_num_groups=32,
            act_fn="silu",
            center_input_sample=False,
            mid_block_scale_factor=1,
            time_embedding_type="positional",
            down_block_types=SHAPES["as google/ddpm-cifar10-32"]["down_block_types"],
            up_block_types=SHAPES["as google/ddpm-cifar10-32"]["up_block_types"],
        ),
        35_746_307,
    ),
    "256": (
        DDPM_FORM
        | dict(
            sample_size=256,
            in_channels=3,
            out_channels=3,
            block_out_channels=(128, 128, 256, 256, 512, 512),
            layers_per_block=2,
            norm_num_groups=32,
            act_fn="silu",
            center_input_sample=False,
            mid_block_scale_factor=1,
            time_embedding_type="positional",
            down_block_types=SHAPES["as google/ddpm-celebahq-256"]["down_block_types"],
            up_block_types=SHAPES["as google/ddpm-celebahq-256"]["up_block_types"],
        ),
        113_673_219,
    ),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_settings_have_our_names_and_shapes(size):
    settings, parameters = PUBLISHED[size]
    config = _shape(settings)
    with torch.device("meta"):
        there, here = diffusers.UNet2DModel(**settings), UNet(config)
    assert sum(p.numel() for p in there.parameters()) == parameters
    assert {name: x.shape for name, x in _ours(config, there.state_dict()).items()} == {
        name: x.shape for name, x in here.state_dict().items()
    }
    assert (
        config.attention == (16,) and config.heads == 1 and config.norm_groups is None
    )
    if size == "32":
        assert config == replace(PRESETS["cifar10"], dropout=0.0)


def largest(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("name", SHAPES)
def test_answers_and_gradients_both_ways(name):
    there = theirs(name)
    run = from_diffusers(there, diffusers.DDPMScheduler())
    c = run.model.config
    x, t = (
        images(0, 3, c.in_channels, c.image_size, c.image_size, dtype=torch.float32),
        torch.tensor([1, 300, 1000]),
    )
    y = torch.tensor([0, 9, 10]) if c.num_classes else None
    ours, other = run.model(x, t, y), there(x, t - 1, class_labels=y).sample
    assert largest(ours, other) < 1e-5
    for made, net in ((ours, run.model), (other, there)):
        made.square().mean().backward()
    assert (
        largest(run.model.conv_in.weight.grad, there.conv_in.weight.grad) < 1e-5
        and largest(
            run.model.time[0].weight.grad, there.time_embedding.linear_1.weight.grad
        )
        < 1e-5
    )
    grads = _ours(c, {name: p.grad for name, p in there.named_parameters()})
    assert set(grads) == set(dict(run.model.named_parameters()))
    # the keys' offsets have no gradient but rounding
    for name, p in run.model.named_parameters():
        assert (p.grad - grads[name]).norm() < 1e-5 * grads[name].norm() + 1e-7, name


@pytest.mark.parametrize("name", SHAPES)
def test_a_folder_there_and_back(name, tmp_path):
    there = theirs(name)
    run = from_diffusers(there, diffusers.DDPMScheduler())
    opened = diffusers.UNet2DModel.from_pretrained(
        to_diffusers(run, tmp_path) / "unet", local_files_only=True
    )
    for (key, a), (_, b) in zip(
        sorted(opened.state_dict().items()), sorted(there.state_dict().items())
    ):
        assert torch.equal(a, b), key
    again = from_diffusers(tmp_path)
    assert again.model.config == run.model.config and all(
        torch.equal(x, again.model.state_dict()[key])
        for key, x in run.model.state_dict().items()
    )


@pytest.mark.parametrize(
    "clip",
    [(-1.0, 1.0), None, DynamicThreshold(0.9, 1.0, 1.5)],
    ids=["clip", "none", "dynamic"],
)
@pytest.mark.parametrize(
    "param, schedule",
    [
        (EPS, linear_schedule()),
        (X0, cosine_schedule()),
        (V, zero_terminal_snr(cosine_schedule(200))),
    ],
    ids=["eps", "x0", "v"],
)
def test_what_is_made_here_samples_alike_there(param, schedule, clip, tmp_path):
    """DDIM and DDPM walks of their pipelines from our folder, from the same noise.
    Their table is float32, so the walks agree to fewer digits than a step."""
    torch.manual_seed(1)
    model = UNet(UNetConfig(8, 1, 16, (1, 2), 1, (4,), dropout=0.0))
    torch.nn.init.normal_(model.conv_out.weight, std=0.05)
    run = Run(model.eval(), schedule, param, clip)
    to_diffusers(run, tmp_path)
    again = from_diffusers(tmp_path)
    assert (
        again.param is param
        and again.clip == clip
        and (again.schedule.alpha_bar - schedule.alpha_bar).abs().max() < 1e-12
    )
    pipeline = diffusers.DDIMPipeline.from_pretrained(tmp_path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    xT = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    want = (
        torch.from_numpy(
            pipeline(
                3,
                generator=torch.Generator().manual_seed(5),
                num_inference_steps=10,
                use_clipped_model_output=True,
                output_type="np",
            ).images
        ).permute(0, 3, 1, 2)
        * 2
        - 1
    )
    got = sample(
        Denoiser(model, schedule, param, clip=clip),
        xT,
        sampler_from_diffusers(pipeline.scheduler, 10),
    ).clamp(-1, 1)
    assert (got - want).abs().max() < 1e-3
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    want = (
        torch.from_numpy(
            pipeline(
                3,
                generator=torch.Generator().manual_seed(5),
                num_inference_steps=10,
                output_type="np",
            ).images
        ).permute(0, 3, 1, 2)
        * 2
        - 1
    )
    g = torch.Generator().manual_seed(5)
    got = sample(
        Denoiser(model, schedule, param, clip=clip),
        torch.randn(3, 1, 8, 8, generator=g),
        sampler_from_diffusers(pipeline.scheduler, 10),
        generator=g,
    ).clamp(-1, 1)
    assert (got - want).abs().max() < 1e-3


def test_older_names_of_the_attention(tmp_path):
    from safetensors.torch import load_file, save_file

    to_diffusers(
        from_diffusers(theirs("scale and shift"), diffusers.DDPMScheduler()), tmp_path
    )
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    old = {
        ".to_q.": ".query.",
        ".to_k.": ".key.",
        ".to_v.": ".value.",
        ".to_out.0.": ".proj_attn.",
    }

    def rename(name):
        for new, before in old.items():
            name = name.replace(new, before)
        return name

    weights = load_file(file)
    want = from_diffusers(tmp_path).model.state_dict()
    save_file({rename(name): x for name, x in weights.items()}, file)
    assert all(
        torch.equal(x, want[name])
        for name, x in from_diffusers(tmp_path).model.state_dict().items()
    )


def test_the_way_of_walking_survives_there_and_back(tmp_path):
    """The published CIFAR-10 network is sampled with the larger variance: the folder
    made from it gives the images that it gave."""
    before = diffusers.DDPMPipeline(
        theirs("as google/ddpm-cifar10-32", sample_size=16),
        diffusers.DDPMScheduler(
            num_train_timesteps=20,
            variance_type="fixed_large",
            timestep_spacing="trailing",
        ),
    )
    after = diffusers.DDPMPipeline.from_pretrained(
        to_diffusers(from_diffusers(before), tmp_path), local_files_only=True
    )
    images = []
    for pipeline in (before, after):
        pipeline.set_progress_bar_config(disable=True)
        images.append(
            torch.from_numpy(
                pipeline(
                    2,
                    generator=torch.Generator().manual_seed(3),
                    num_inference_steps=10,
                    output_type="np",
                ).images
            )
        )
    assert (
        images[0] - images[1]
    ).abs().max() < 1e-3 and after.scheduler.config.variance_type == "fixed_large"


def test_half_precision_becomes_the_float32_of_a_run():
    assert {
        p.dtype
        for p in from_diffusers(
            theirs("labels").half(), diffusers.DDPMScheduler()
        ).model.parameters()
    } == {torch.float32}


# Schedulers


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        dict(beta_schedule="squaredcos_cap_v2"),
        dict(beta_schedule="sigmoid"),
        dict(num_train_timesteps=50),
        dict(rescale_betas_zero_snr=True),
    ],
    ids=str,
)
def test_schedules_are_theirs(options):
    other = diffusers.DDPMScheduler(**options)
    schedule = from_diffusers(theirs("labels"), other).schedule
    torch.testing.assert_close(
        schedule.alpha_bar[1:].float(), other.alphas_cumprod, rtol=3e-4, atol=1e-6
    )


def test_a_prediction_named_as_in_2022():
    settings = dict(diffusers.DDPMScheduler().config)
    settings.pop("prediction_type")
    assert (
        from_diffusers(theirs("labels"), settings).param is EPS
        and from_diffusers(
            theirs("labels"), settings | dict(predict_epsilon=False)
        ).param
        is X0
    )


@pytest.mark.parametrize("kind", [diffusers.DDIMScheduler, diffusers.DDPMScheduler])
@pytest.mark.parametrize(
    "spacing, offset",
    [("leading", 0), ("leading", 1), ("trailing", 0), ("linspace", 0)],
)
def test_times_and_offsets_are_honoured(kind, spacing, offset):
    other = kind(timestep_spacing=spacing, steps_offset=offset)
    other.set_timesteps(10)
    made = sampler_from_diffusers(other, 10)
    assert (
        isinstance(made, DDIM if kind is diffusers.DDIMScheduler else DDPM)
        and [t - 1 for t in made.timesteps] == other.timesteps.tolist()
    )


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("DDIMScheduler", dict(set_alpha_to_one=False), ["set_alpha_to_one", "False"]),
        ("DDIMScheduler", dict(steps_offset=200), ["steps_offset", "200"]),
        (
            "DDPMScheduler",
            dict(variance_type="learned_range"),
            ["variance_type", "learned_range"],
        ),
        ("EulerDiscreteScheduler", dict(), ["EulerDiscreteScheduler"]),
    ],
)
def test_settings_that_make_another_walk_are_refused(name, options, words):
    with pytest.raises(ValueError) as refusal:
        sampler_from_diffusers(getattr(diffusers, name)(**options), 5)
    assert all(word in str(refusal.value) for word in words)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(resnet_time_scale_shift="scale_shift"), ["attn_norm_num_groups"]),
        (dict(out_channels=2), ["out_channels", "learned variances"]),
        (dict(downsample_padding=1), ["downsample_padding"]),
        (dict(flip_sin_to_cos=True), ["flip_sin_to_cos"]),
        (dict(freq_shift=0), ["freq_shift"]),
        (dict(norm_eps=1e-5), ["norm_eps"]),
        (dict(norm_num_groups=6), ["norm_num_groups", "6"]),
        (dict(time_embedding_dim=128), ["time_embedding_dim", "128"]),
        (dict(add_attention=False), ["add_attention"]),
        (dict(time_embedding_type="fourier"), ["time_embedding_type"]),
        (dict(act_fn="gelu"), ["act_fn"]),
        (dict(block_out_channels=(16, 24)), ["block_out_channels"]),
        (dict(up_block_types=("UpBlock2D", "AttnUpBlock2D")), ["up_block_types"]),
        (
            dict(
                attention_head_dim=12,
                down_block_types=("AttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "AttnUpBlock2D"),
            ),
            ["attention_head_dim"],
        ),
    ],
)
def test_networks_that_are_no_ddpm_network_are_refused(changes, words):
    with pytest.raises(ValueError) as refusal:
        _shape(DDPM_FORM | SHAPES["labels"] | changes)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


def test_damaged_folders(tmp_path):
    from safetensors.torch import load_file, save_file

    run = from_diffusers(theirs("labels"), diffusers.DDPMScheduler())

    def folder(name):
        return to_diffusers(run, tmp_path / name)

    def refused(path, *words):
        with pytest.raises(ValueError) as refusal:
            from_diffusers(path)
        assert all(word in str(refusal.value) for word in words), str(refusal.value)

    weights = "diffusion_pytorch_model.safetensors"
    one = folder("truncated") / "unet" / weights
    one.write_bytes(one.read_bytes()[:1000])
    refused(tmp_path / "truncated", weights, "damaged")
    (folder("pickle") / "unet" / weights).rename(
        tmp_path / "pickle" / "unet" / "diffusion_pytorch_model.bin"
    )
    refused(tmp_path / "pickle", weights, "pickle")
    (folder("json") / "unet" / "config.json").write_text("{")
    refused(tmp_path / "json", "config.json", "JSON")
    (folder("none") / "scheduler" / "scheduler_config.json").unlink()
    refused(tmp_path / "none", "scheduler_config.json")
    other = folder("shape") / "unet" / "config.json"
    other.write_text(
        json.dumps(json.loads(other.read_text()) | {"num_class_embeds": 6})
    )
    refused(tmp_path / "shape", "label.weight", "(6, 64)")
    learned = folder("learned") / "unet" / weights
    save_file(
        {
            name: torch.cat([x, x]) if name.startswith("conv_out") else x
            for name, x in load_file(learned).items()
        },
        learned,
    )
    refused(tmp_path / "learned", "conv_out", "learned variances")
    refused(tmp_path / "absent", "folder")
    refused(3, "source", "int")


def test_runs_that_they_cannot_hold(tmp_path):
    for config, word in (
        (UNetConfig(8, 1, 16, (1, 2), 1, (), context_dim=3), "context"),
        (UNetConfig(8, 1, 16, (2, 2), 1, ()), "multiplier"),
        (UNetConfig(8, 1, 16, (1, 2), 1, (), upsampling="transposed"), "upsampling"),
        (UNetConfig(14, 1, 16, (1, 2, 2), 1, ()), "image_size"),
        (UNetConfig(8, 1, 16, (1, 2), 1, (8,), heads=2), "several heads"),
    ):
        with pytest.raises(ValueError, match=word):
            to_diffusers(
                Run(UNet(config), linear_schedule(), EPS, None), tmp_path / "new"
            )
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="clip"):
        to_diffusers(
            Run(
                UNet(UNetConfig(8, 1, 16, (1, 2), 1, ())),
                linear_schedule(),
                EPS,
                (0.0, 1.0),
            ),
            tmp_path / "new",
        )
