"""diffusers as an oracle: single steps of its schedulers, and its U-Net with the same
weights. Its times are ours − 1."""

import pytest
import torch
from strategies import images

from ddpm_lit import DDIM, DDPM, EPS, V, X0, UNet, UNetConfig, cosine_schedule
from ddpm_lit import linear_schedule, q_sample
from ddpm_lit.prediction import clip_prediction

diffusers = pytest.importorskip("diffusers")
KINDS = {"epsilon": EPS, "sample": X0, "v_prediction": V}
SCHEDULES = {"linear": linear_schedule(), "cosine": cosine_schedule()}


def close(ours, theirs):
    "Within 1e-5 of the largest value."
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, theirs.abs().max().item())


def scheduler(kind, schedule, spacing="trailing", **options):
    """Theirs, with its float32 table replaced by float64: the formulas are compared,
    not the digits that 1 − ᾱ_1 loses."""
    made = kind(
        num_train_timesteps=schedule.T,
        trained_betas=schedule.beta[1:].numpy(),
        timestep_spacing=spacing,
        clip_sample_range=1.0,
        **options,
    )
    torch.testing.assert_close(
        made.alphas_cumprod,
        schedule.alpha_bar[1:].to(made.alphas_cumprod),
        rtol=2e-4,
        atol=0,
    )
    made.alphas_cumprod = schedule.alpha_bar[1:]
    return made


def clipped(schedule, param, out, x, t, clip):
    pred = param.decode(schedule, out, x, t)
    return clip_prediction(schedule, pred, x, t, (-1, 1)) if clip else pred


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("steps", [10, 100, 1000])
def test_the_times_are_the_same(spacing, steps):
    theirs = scheduler(diffusers.DDIMScheduler, linear_schedule(), spacing)
    theirs.set_timesteps(steps)
    assert [
        t - 1 for t, _ in DDIM(steps, spacing=spacing).pairs(linear_schedule())
    ] == theirs.timesteps.tolist()


@pytest.mark.parametrize("clip", [False, True], ids=["", "clip"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name, spacing, steps",
    [("linear", "trailing", 10), ("linear", "leading", 50), ("cosine", "leading", 20)],
)
def test_ddim_step(name, spacing, steps, kind, eta, clip):
    schedule, param, ours = SCHEDULES[name], KINDS[kind], DDIM(steps, eta, spacing)
    theirs = scheduler(
        diffusers.DDIMScheduler,
        schedule,
        spacing,
        prediction_type=kind,
        clip_sample=clip,
        set_alpha_to_one=True,
    )
    theirs.set_timesteps(steps)
    pairs = ours.pairs(schedule)
    for t, s in (pairs[0], pairs[len(pairs) // 2], pairs[-2], pairs[-1]):
        x, out, noise = (
            images(t + i, 2, 3, 4, 4, dtype=torch.float32) for i in range(3)
        )
        pred = clipped(schedule, param, out, x, t, clip)
        want = theirs.step(
            out, t - 1, x, eta=eta, use_clipped_model_output=True, variance_noise=noise
        )
        close(pred.x0, want.pred_original_sample)
        close(ours.step(schedule, x, pred, t, s, noise), want.prev_sample)


@pytest.mark.parametrize("clip", [False, True], ids=["", "clip"])
@pytest.mark.parametrize(
    "variance, theirs_name", [("posterior", "fixed_small"), ("beta", "fixed_large")]
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name, steps", [("linear", None), ("linear", 50), ("cosine", 20)]
)
def test_ddpm_step(name, steps, kind, variance, theirs_name, clip):
    schedule, param, ours = SCHEDULES[name], KINDS[kind], DDPM(steps, variance)
    theirs = scheduler(
        diffusers.DDPMScheduler,
        schedule,
        prediction_type=kind,
        variance_type=theirs_name,
        clip_sample=clip,
    )
    theirs.set_timesteps(steps or schedule.T)
    pairs = ours.pairs(schedule)
    # theirs ends a shorter walk with noise
    for t, s in (
        pairs[0],
        pairs[len(pairs) // 2],
        pairs[-2],
        *([pairs[-1]] if steps is None else []),
    ):
        x, out = (images(t + i, 2, 3, 4, 4, dtype=torch.float32) for i in range(2))
        want = theirs.step(out, t - 1, x, generator=torch.Generator().manual_seed(t))
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(t))
        pred = clipped(schedule, param, out, x, t, clip)
        close(pred.x0, want.pred_original_sample)
        close(ours.step(schedule, x, pred, t, s, noise), want.prev_sample)


def test_forward_process():
    theirs = scheduler(diffusers.DDPMScheduler, linear_schedule())
    x0, eps, t = images(0, 4, 3), images(1, 4, 3), torch.tensor([1, 2, 500, 1000])
    close(
        q_sample(linear_schedule(), x0.float(), t, eps.float()),
        theirs.add_noise(x0.float(), eps.float(), t - 1),
    )


# The U-Net


def reference(c: UNetConfig):
    """diffusers' network of the same shape, in the form of the published google/ddpm
    weights."""
    down = ["AttnDownBlock2D" if n in c.attention else "DownBlock2D" for n in c.sizes]
    up = [
        "AttnUpBlock2D" if n in c.attention else "UpBlock2D" for n in reversed(c.sizes)
    ]
    return diffusers.UNet2DModel(
        sample_size=c.image_size,
        in_channels=c.in_channels,
        out_channels=c.in_channels,
        block_out_channels=c.widths,
        layers_per_block=c.blocks,
        down_block_types=down,
        up_block_types=up,
        norm_num_groups=c.groups,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=c.widths[-1] // c.heads if c.heads > 1 else None,
        dropout=c.dropout,
        num_class_embeds=None if c.num_classes is None else c.num_classes + 1,
    )


def partners(ours: UNet, theirs):
    "(our module, their module or modules) in the order of the forward pass."

    def blocks(layers, resnets, attentions):
        for resnet, attention in zip(resnets, attentions):
            b = next(layers)
            yield from [
                (b.norm1, resnet.norm1),
                (b.conv1, resnet.conv1),
                (b.time, resnet.time_emb_proj),
                (b.norm2, resnet.norm2),
                (b.conv2, resnet.conv2),
            ]
            if resnet.conv_shortcut is not None:
                yield b.shortcut, resnet.conv_shortcut
            if attention is not None:
                yield from [
                    (b.attention.norm, attention.group_norm),
                    (b.attention.qkv, (attention.to_q, attention.to_k, attention.to_v)),
                    (b.attention.out, attention.to_out[0]),
                ]

    yield from [
        (ours.conv_in, theirs.conv_in),
        (ours.time[0], theirs.time_embedding.linear_1),
        (ours.time[2], theirs.time_embedding.linear_2),
    ]
    if ours.label is not None:
        yield ours.label, theirs.class_embedding
    for layers, levels, resampling in (
        (iter(ours.down), theirs.down_blocks, "downsamplers"),
        (iter(ours.up), theirs.up_blocks, "upsamplers"),
    ):
        for level in levels:
            yield from blocks(
                layers,
                level.resnets,
                getattr(level, "attentions", [None] * len(level.resnets)),
            )
            if getattr(level, resampling):
                yield next(layers), getattr(level, resampling)[0].conv
    yield from blocks(
        iter(ours.middle),
        theirs.mid_block.resnets,
        [theirs.mid_block.attentions[0], None],
    )
    yield from [(ours.norm_out, theirs.conv_norm_out), (ours.conv_out, theirs.conv_out)]


@torch.no_grad()
def copy_weights(ours, theirs) -> int:
    copied = 0
    for mine, others in partners(ours, theirs):
        others = others if isinstance(others, tuple) else (others,)
        for name, parameter in mine.named_parameters():
            parameter.copy_(torch.cat([getattr(m, name) for m in others]))
            copied += parameter.numel()
    return copied


@pytest.mark.parametrize(
    "config, shape",
    [
        (UNetConfig(8, 1, 32, (1, 2), 2, (4,)), (3, 1, 8, 8)),
        (UNetConfig(16, 3, 48, (1, 2, 3), 1, (8, 4)), (3, 3, 16, 24)),
        (UNetConfig(8, 1, 20, (1, 2), 1, ()), (3, 1, 8, 8)),
        (UNetConfig(16, 1, 64, (1, 1), 1, (8,), heads=4), (3, 1, 16, 16)),
        (UNetConfig(8, 1, 16, (1, 2), 1, (), num_classes=10), (3, 1, 8, 8)),
    ],
    ids=["digits", "three-levels", "20-channels", "heads", "labels"],
)
def test_unet_with_the_same_weights(config, shape):
    ours, theirs = UNet(config).eval(), reference(config).eval()
    sizes = [sum(p.numel() for p in net.parameters()) for net in (ours, theirs)]
    assert copy_weights(ours, theirs) == sizes[0] == sizes[1]
    x, t = images(0, *shape, dtype=torch.float32), torch.tensor([1, 400, 1000])
    y = torch.tensor([0, 9, 10]) if config.num_classes else None
    with torch.no_grad():
        got, want = ours(x, t, y), theirs(x, t - 1, class_labels=y).sample
    assert (
        want.abs().max() > 0.01 and (got - want).abs().max() <= 2e-5 * want.abs().max()
    )
