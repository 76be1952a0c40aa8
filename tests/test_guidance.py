"""Guidance: the formula, its cost, its agreement in every parameterization, and what
U-Nets are told."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import images, schedules, seeds

from ddpm_lit import DDIM, DDPM, EPS, V, X0, Denoiser, GaussianMixtureOracle, UNet
from ddpm_lit import UNetConfig
from ddpm_lit import cosine_schedule, linear_schedule, sample, zero_terminal_snr
from ddpm_lit.guidance import classifier_guided, guided

PARAMS = [EPS, X0, V]
K, MEANS, VARS = 3, images(7, 3, 2, 2), [0.1, 0.5, 0.02]
WEIGHTS = [0.2, 0.5, 0.3]


def asking(model, param=EPS):
    "A denoiser for a model that knows the linear schedule."
    return Denoiser(model, linear_schedule(), param)


def oracle(schedule=linear_schedule(), param=EPS):
    return GaussianMixtureOracle(schedule, WEIGHTS, MEANS, VARS, param)


class Counting:
    "A model with a null that notes what it is asked."

    def __init__(self, model):
        self.model, self.null, self.asked = model, model.null, []

    def __call__(self, x, t, y=None):
        self.asked.append((len(x), None if y is None else y.tolist()))
        return self.model(x, t, y)


# Without a classifier


@given(schedules(), seeds, st.floats(-3, 10), st.sampled_from(PARAMS))
def test_guided_is_the_formula_of_two_calls(schedule, seed, scale, param):
    model, x = oracle(schedule, param), images(seed, 5, 2, 2)
    t, y = torch.randint(1, schedule.T + 1, (5,)), torch.tensor([0, 1, 2, 2, 1])
    free, bound = model(x, t), model(x, t, y)
    want = (1 - scale) * free + scale * bound
    for asked in (model, lambda x, t, y=None: model(x, t, y)):
        torch.testing.assert_close(
            guided(asking(asked), y, scale).model(x, t), want, rtol=1e-10, atol=1e-10
        )


def test_one_call_of_twice_the_batch_and_half_of_it_where_one_answer_is_enough():
    x, t, y = images(0, 3, 2, 2), torch.tensor([1, 500, 1000]), torch.tensor([0, 1, 2])
    for scale, want in (
        (2.5, [(6, [3, 3, 3, 0, 1, 2])]),
        (1.0, [(3, [0, 1, 2])]),
        (0, [(3, [3, 3, 3])]),
        (torch.tensor([0.0, 1.0, 2.0]), [(6, [3, 3, 3, 0, 1, 2])]),
    ):
        model = Counting(oracle())
        guided(asking(model), y, scale).model(x, t)
        assert model.asked == want
    assert torch.equal(
        guided(asking(oracle()), y, 1).model(x, t), oracle()(x, t, y)
    ) and torch.equal(guided(asking(oracle()), y, 0.0).model(x, t), oracle()(x, t))


def test_a_model_without_null_is_called_twice():
    asked = []

    def model(x, t, *y):
        asked.append(len(x))
        return oracle()(x, t, *y)

    guided(asking(model), torch.tensor([0, 1]), 3.0).model(
        images(0, 2, 2, 2), torch.tensor([1, 7])
    )
    assert asked == [2, 2]


def test_a_scale_for_each_image():
    x, t, y, scales = (
        images(0, 4, 2, 2),
        torch.tensor([1, 50, 500, 1000]),
        torch.tensor([0, 1, 2, 0]),
        torch.tensor([0.0, 1.0, 3.5, -1.0]),
    )
    together = guided(asking(oracle()), y, scales).model(x, t)
    for i in range(4):
        torch.testing.assert_close(
            together[i : i + 1],
            guided(asking(oracle()), y[i : i + 1], scales[i].item()).model(
                x[i : i + 1], t[i : i + 1]
            ),
            rtol=1e-12,
            atol=1e-12,
        )


def test_one_label_for_all_images_of_any_batch():
    model = guided(asking(oracle()), 2, 3.0)
    for batch in (1, 4):
        x, t = images(batch, batch, 2, 2), torch.full((batch,), 300)
        assert torch.equal(
            model.model(x, t),
            guided(asking(oracle()), torch.full((batch,), 2), 3.0).model(x, t),
        )


def test_guiding_towards_no_label_is_no_guidance():
    x, t = images(0, 2, 2, 2), torch.tensor([10, 900])
    torch.testing.assert_close(
        guided(asking(oracle()), torch.tensor([K, K]), 7.0).model(x, t),
        oracle()(x, t),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("sampler", [DDIM(8), DDIM(8, 1.0), DDPM(steps=8)], ids=str)
def test_guided_walks_agree_in_every_parameterization(sampler):
    xT, y = images(0, 3, 2, 2), torch.tensor([0, 1, 2])

    def walk(param, clip=None):
        return sample(
            guided(
                Denoiser(oracle(param=param), linear_schedule(), param, clip=clip),
                y,
                3.0,
            ),
            xT,
            sampler,
            generator=torch.Generator().manual_seed(1),
        )

    for param in (X0, V):
        torch.testing.assert_close(walk(param), walk(EPS), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            walk(param, (-1, 1)), walk(EPS, (-1, 1)), rtol=1e-9, atol=1e-9
        )


def test_half_precision_answers_are_combined_in_float32():
    def model(x, t, y=None):
        return oracle()(x.double(), t, y).to(torch.bfloat16)

    out = guided(asking(model), torch.tensor([0, 1]), 3.0).model(
        images(0, 2, 2, 2), torch.tensor([10, 900])
    )
    assert out.dtype == torch.float32 and not torch.equal(out, out.bfloat16().float())


def test_variance_of_guided_ddim_is_the_geometric_mean():
    """N(0, 1) and a label that leaves N(0, 1/4): x_0 has the variance 4^−g (Bradley &
    Nakkiran 2024), where the product would have 1/(1 + 3g)."""
    schedule = linear_schedule()
    wide, narrow = (
        GaussianMixtureOracle(schedule, [1.0], [[0.0]], [var]) for var in (1.0, 0.25)
    )
    scales, one = (
        torch.tensor([0.0, 1.0, 2.0, 3.0]),
        torch.ones(4, 1, dtype=torch.float64),
    )
    x = sample(
        guided(
            Denoiser(
                lambda x, t, y=None: (wide if y is None else narrow)(x, t), schedule
            ),
            0,
            scales,
        ),
        one,
        DDIM(500),
    )
    assert 2 * x[:, 0].log() / math.log(4) == pytest.approx(-scales, abs=0.05)


# With a classifier


def log_prob(schedule, y):
    "The exact log p(y | x_t) of the mixture."
    only, everything = (
        GaussianMixtureOracle(schedule, [1.0], MEANS[y : y + 1], VARS[y : y + 1]),
        oracle(schedule),
    )
    return lambda x, t: (
        math.log(WEIGHTS[y]) + only.log_prob(x, t) - everything.log_prob(x, t)
    )


@pytest.mark.parametrize("param", PARAMS, ids=lambda p: p.name)
@pytest.mark.parametrize(
    "schedule", [linear_schedule(), cosine_schedule()], ids=["linear", "cosine"]
)
def test_the_exact_classifier_makes_the_conditional_model(schedule, param):
    x, t, model = (
        images(0, 6, 2, 2),
        torch.tensor([1, 10, 100, 500, 900, 1000]),
        oracle(schedule, param),
    )
    for scale in (0.0, 1.0, 4.0):
        got = classifier_guided(
            Denoiser(model, schedule, param), log_prob(schedule, 2), scale
        ).model(x, t)
        torch.testing.assert_close(
            got, guided(asking(model), 2, scale).model(x, t), rtol=1e-6, atol=1e-8
        )


def test_a_classifier_can_guide_a_sampler_which_holds_no_gradients():
    schedule, xT = linear_schedule(), images(0, 5, 2, 2)
    model = classifier_guided(Denoiser(oracle(), schedule), log_prob(schedule, 2), 1.0)
    x = sample(model, xT, DDIM(10))
    assert not x.requires_grad and torch.is_grad_enabled()
    torch.testing.assert_close(
        x,
        sample(guided(Denoiser(oracle(), schedule), 2, 1.0), xT, DDIM(10)),
        rtol=1e-9,
        atol=1e-9,
    )


# Mistakes

TWO = torch.tensor([10, 900])


@pytest.mark.parametrize(
    "call, names",
    [
        (
            lambda x: guided(asking(oracle()), torch.tensor([0.0, 1.0]), 2.0),
            ["y", "int64", "float32"],
        ),
        (
            lambda x: guided(asking(oracle()), torch.tensor([[0, 1]]), 2.0),
            ["y", "(1, 2)"],
        ),
        (lambda x: guided(asking(oracle()), 0.5, 2.0), ["y", "int"]),
        (lambda x: guided(asking(oracle()), 0, math.nan), ["scale", "nan"]),
        (lambda x: guided(asking(oracle()), 0, torch.ones(2, 1)), ["scale"]),
        (
            lambda x: guided(asking(oracle()), torch.tensor([0]), 2.0).model(x, TWO),
            ["y", "2", "1"],
        ),
        (
            lambda x: guided(asking(oracle()), 0, torch.ones(3)).model(x, TWO),
            ["scale", "2", "3"],
        ),
        (lambda x: guided(asking(oracle()), 4, 2.0).model(x, TWO), ["y", "0..3", "4"]),
        (
            lambda x: guided(asking(oracle()), 0, 2.0).model(
                x, TWO, torch.tensor([0, 0])
            ),
            ["y must be None"],
        ),
        (
            lambda x: guided(asking(UNet(SMALL)), 0, 2.0),
            ["y must be None", "num_classes"],
        ),
        (
            lambda x: guided(asking(UNet(replace(SMALL, num_classes=3))), 4, 2.0),
            ["y", "0..2", "4"],
        ),
        (
            lambda x: guided(
                asking(UNet(replace(SMALL, context_dim=2))), torch.zeros(2, 3), 2.0
            ),
            ["y", "(2, 2)", "(2, 3)"],
        ),
        (
            lambda x: classifier_guided(
                Denoiser(oracle(), zero_terminal_snr(linear_schedule()), V),
                log_prob(linear_schedule(), 0),
                1.0,
            ).model(x, torch.tensor([10, 1000])),
            ["t", "alpha_bar", "1000"],
        ),
        (
            lambda x: sample(
                guided(
                    Denoiser(oracle(), linear_schedule()), torch.tensor([0, 1, 2]), 2.0
                ),
                x,
                DDIM(2),
            ),
            ["y", "2", "3"],
        ),
    ],
)
def test_mistakes_are_refused(call, names):
    with pytest.raises(ValueError) as refusal:
        call(images(0, 2, 2, 2))
    assert all(name in str(refusal.value) for name in names), str(refusal.value)


# What a U-Net is told

SMALL = UNetConfig(8, 1, 16, (1, 2), 1, (4,), dropout=0.0)


def noisy(net: UNet) -> UNet:
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.1)
    return net.eval()


X, T = images(0, 3, 1, 8, 8, dtype=torch.float32), torch.tensor([1, 400, 1000])
KINDS = {
    "labels": (dict(num_classes=3), torch.tensor([0, 2, 1])),
    "contexts": (
        dict(context_dim=2),
        torch.tensor([[0.0, 0.0], [1.0, -0.5], [1.0, 1.0]]),
    ),
}


@pytest.mark.parametrize("conditioning", ["add", "scale_shift"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_null_is_no_label_row_by_row_and_each_label_matters(kind, conditioning):
    options, y = KINDS[kind]
    net = noisy(UNet(replace(SMALL, **options, conditioning=conditioning)))
    free, null = net(X, T), net.null(y)
    assert null.shape == y.shape and null.dtype == y.dtype
    torch.testing.assert_close(net(X, T, null), free)
    bound = net(X, T, y)
    assert ((bound - free).flatten(1).abs().amax(1) > 1e-4).all(), (
        "all zeros is a context like any other"
    )
    mixed = torch.cat([null[:1], y[1:]])
    torch.testing.assert_close(
        net(X, T, mixed), torch.cat([free[:1], bound[1:]]), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        guided(asking(net), y, 3.0).model(X, T),
        free + 3 * (bound - free),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_null_is_learned(kind):
    options, y = KINDS[kind]
    net = noisy(UNet(replace(SMALL, **options)))
    net(X, T, net.null(y)).square().sum().backward()
    learned = net.label.weight.grad[3] if kind == "labels" else net.context.null.grad
    others = (
        net.label.weight.grad[:3]
        if kind == "labels"
        else net.context.project.weight.grad
    )
    assert learned.abs().max() > 0 and not others.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_a_network_without_labels_has_the_weights_it_always_had():
    names = lambda **options: {
        name: tuple(p.shape)
        for name, p in UNet(replace(SMALL, **options)).state_dict().items()
    }
    plain = names()
    assert not [name for name in plain if "label" in name or "context" in name]
    assert set(names(num_classes=3)) - set(plain) == {"label.weight"} and set(
        names(context_dim=2)
    ) - set(plain) == {"context.project.weight", "context.project.bias", "context.null"}
    scaled = names(conditioning="scale_shift")
    assert set(scaled) == set(plain)
    for name in plain:
        wider = name.endswith(("time.weight", "time.bias")) and not name.startswith(
            "time"
        )
        assert scaled[name] == (
            (2 * plain[name][0], *plain[name][1:]) if wider else plain[name]
        )


@torch.no_grad()
def test_scale_and_shift_do_what_they_say():
    """Without the weights of the layer the time is not told, and where 1 + a is 0
    nothing is left of the features."""
    net = noisy(UNet(replace(SMALL, conditioning="scale_shift")))
    blocks = [m for m in net.modules() if hasattr(m, "conv2")]
    told = net(X[:1], T[:1]) - net(X[:1], T[2:])
    for block in blocks:
        block.time.weight.zero_()
    assert told.abs().max() > 1e-4 and torch.equal(net(X[:1], T[:1]), net(X[:1], T[2:]))
    block, h = blocks[0], images(1, 2, 16, 8, 8, dtype=torch.float32)
    block.time.bias.zero_()
    block.time.bias[:16] = -1.0  # 1 + a = 0: nothing is left of the features
    torch.testing.assert_close(
        block(h, torch.zeros(2, 64)),
        block(torch.zeros_like(h), torch.zeros(2, 64)) + block.shortcut(h),
    )


@pytest.mark.parametrize(
    "options",
    [
        dict(num_classes=3, context_dim=2),
        dict(context_dim=0),
        dict(conditioning="film"),
    ],
)
def test_mistakes_in_the_configuration_are_refused(options):
    with pytest.raises(ValueError) as refusal:
        replace(SMALL, **options)
    assert list(options)[-1] in str(refusal.value)


@pytest.mark.parametrize(
    "kind, y",
    [
        ("labels", torch.tensor([0, 1, 4])),
        ("labels", torch.tensor([0, -1, 2])),
        ("labels", torch.tensor([0.0, 1.0, 2.0])),
        ("labels", torch.tensor([0, 1])),
        ("contexts", torch.zeros(3, 3)),
        ("contexts", torch.zeros(2, 2)),
        ("contexts", torch.zeros(3, 2, dtype=torch.int64)),
        ("contexts", torch.tensor([[0.0, math.nan]] * 3)),
        ("contexts", torch.tensor([[0.0, math.inf]] * 3)),
    ],
)
def test_labels_and_contexts_that_the_network_does_not_know_are_refused(kind, y):
    net = UNet(replace(SMALL, **KINDS[kind][0]))
    with pytest.raises(ValueError, match="y must"):
        net(X, T, y)


@torch.no_grad()
def test_scale_and_shift_with_the_weights_of_another_library():
    diffusers = pytest.importorskip("diffusers")
    from test_diffusers import copy_weights

    c = replace(SMALL, channels=32, conditioning="scale_shift")
    theirs = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=c.widths,
        layers_per_block=1,
        down_block_types=["DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D"],
        norm_num_groups=c.groups,
        attn_norm_num_groups=c.groups,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        resnet_time_scale_shift="scale_shift",
    ).eval()
    ours = UNet(c).eval()
    assert copy_weights(ours, theirs) == sum(p.numel() for p in theirs.parameters())
    got, want = ours(X, T), theirs(X, T - 1).sample
    assert (
        want.abs().max() > 0.01 and (got - want).abs().max() <= 2e-5 * want.abs().max()
    )


def test_the_label_of_the_model_that_a_classifier_guides_reaches_it():
    def told(x, t, y=None):
        return torch.zeros_like(x) if y is None else y[:, None].expand_as(x)

    guide = lambda x, t: x.sum(1)  # its slope is 1 everywhere
    schedule = linear_schedule()
    model = classifier_guided(Denoiser(told, schedule), guide, 2.0)
    x, y = images(0, 2, 3), torch.tensor([0.5, -0.25])
    shift = -2 * (1 - schedule.alpha_bar[300]).sqrt()
    want = y[:, None].double() + shift
    pred = model(x, 300, y)
    torch.testing.assert_close(pred.eps, want.expand_as(x), rtol=1e-6, atol=1e-6)
    assert torch.equal(
        model(x, 300).eps, EPS.decode(schedule, shift + 0 * x, x, 300).eps
    )


def test_guided_denoisers_keep_how_they_are_asked():
    "Schedule, parameterization and clip are those of the denoiser that is guided."
    base = Denoiser(oracle(param=V), linear_schedule(), V, (-0.25, 0.5))
    for made in (
        guided(base, torch.tensor([0, 1]), 2.0),
        classifier_guided(base, lambda x, t: x.sum(1), 2.0),
    ):
        assert made.schedule is base.schedule and made.param == V
        assert made.clip == base.clip


def test_a_scale_is_looked_at_on_the_cpu_whatever_is_the_default_device():
    base = asking(lambda x, t, y=None: x)
    with torch.device("meta"):  # where nothing can be looked at
        assert guided(base, 1, 3.0)(images(0, 2, 3).to("meta"), 7).x0.is_meta
        with pytest.raises(ValueError, match="scale must be a finite number"):
            guided(base, 1, math.nan)
