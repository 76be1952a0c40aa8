"""What a network predicts: ε, x_0 and v carry the same information, and the loss is
zero for whoever knows it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import images, schedules, seeds

from ddpm_lit import EPS, V, X0, Denoiser, DynamicThreshold, NoiseSchedule
from ddpm_lit import Prediction
from ddpm_lit import cosine_schedule, ddpm_loss
from ddpm_lit import linear_schedule, q_sample
from ddpm_lit.prediction import PARAMETERIZATIONS, clip_prediction, min_snr_weight

KINDS = pytest.mark.parametrize("param", [EPS, X0, V], ids=lambda p: p.name)


@KINDS
@given(schedules(), seeds)
def test_decode_undoes_target(param, schedule, seed):
    x0, eps = images(seed, 3, 2), images(seed + 1, 3, 2)
    t = torch.randint(
        1, schedule.T + 1, (3,), generator=torch.Generator().manual_seed(seed)
    )
    xt = q_sample(schedule, x0, t, eps)
    pred = param.decode(schedule, param.target(schedule, x0, eps, t), xt, t)
    scale = (
        1e-13 / schedule.alpha_bar.min().sqrt().item()
        + 1e-13 / (1 - schedule.alpha_bar[1]).sqrt().item()
    )
    torch.testing.assert_close(pred.x0, x0, rtol=0, atol=30 * scale)
    torch.testing.assert_close(pred.eps, eps, rtol=0, atol=30 * scale)


@KINDS
@given(schedules(), seeds)
def test_any_prediction_is_consistent_with_xt(param, schedule, seed):
    "Whatever the network says, √ᾱ x̂_0 + √(1−ᾱ) ε̂ = x_t."
    out, xt = images(seed, 2, 3), images(seed + 1, 2, 3)
    for t in {1, schedule.T}:
        pred = param.decode(schedule, out, xt, t)
        gap = q_sample(schedule, pred.x0, t, pred.eps) - xt
        assert gap.abs().max() <= 1e-12 * (
            1 + pred.x0.abs().max() + pred.eps.abs().max()
        )


def test_targets_are_those_of_the_papers():
    schedule, t = linear_schedule(), 300
    x0, eps, abar = images(0, 2, 3), images(1, 2, 3), linear_schedule().alpha_bar[300]
    torch.testing.assert_close(EPS.target(schedule, x0, eps, t), eps, rtol=0, atol=0)
    torch.testing.assert_close(X0.target(schedule, x0, eps, t), x0, rtol=0, atol=0)
    torch.testing.assert_close(
        V.target(schedule, x0, eps, t),
        abar.sqrt() * eps - (1 - abar).sqrt() * x0,
        rtol=1e-14,
        atol=1e-14,
    )
    assert set(PARAMETERIZATIONS) >= {"eps", "x0", "v"}
    assert repr(EPS) == "Parameterization(name='eps')"  # and not where a function lies


@KINDS
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_round_trip_in_float32_and_half(param, kind):
    schedule = {"linear": linear_schedule, "cosine": cosine_schedule}[kind]()
    t = torch.tensor([1, 10, 500, 900])
    for dtype in (torch.float32, torch.bfloat16):
        x0, eps = images(0, 4, 8, dtype=dtype), images(1, 4, 8, dtype=dtype)
        xt, target = q_sample(schedule, x0, t, eps), param.target(schedule, x0, eps, t)
        pred = param.decode(schedule, target, xt, t)
        assert target.dtype == pred.x0.dtype == pred.eps.dtype == torch.float32
        assert torch.isfinite(pred.x0).all() and torch.isfinite(pred.eps).all()
        torch.testing.assert_close(pred.x0, x0.float(), rtol=0, atol=2e-5)
        torch.testing.assert_close(pred.eps, eps.float(), rtol=0, atol=1e-4)


@KINDS
@given(schedules(), seeds)
def test_who_knows_the_answer_has_no_loss(param, schedule, seed):
    x0, eps = images(seed, 3, 2), images(seed + 1, 3, 2)
    t = torch.randint(
        1, schedule.T + 1, (3,), generator=torch.Generator().manual_seed(seed)
    )

    def knows(x, t):
        return param.target(schedule, x0, eps, t)

    assert ddpm_loss(knows, schedule, x0, t, eps, param) == 0

    def zero(x, t):
        return torch.zeros_like(x)

    losses = ddpm_loss(zero, schedule, x0, t, eps, param, reduction="none")
    torch.testing.assert_close(
        losses, param.target(schedule, x0, eps, t).square().mean(1)
    )
    torch.testing.assert_close(
        ddpm_loss(zero, schedule, x0, t, eps, param), losses.mean()
    )
    weight = torch.tensor([0.0, 1.0, 2.0])
    torch.testing.assert_close(
        ddpm_loss(zero, schedule, x0, t, eps, param, weight=weight),
        (weight.double() * losses).mean(),
    )


def test_loss_hands_the_model_xt_t_and_y():
    schedule, x0, eps, t = (
        linear_schedule(),
        images(0, 2, 1, 2, 2),
        images(1, 2, 1, 2, 2),
        torch.tensor([3, 700]),
    )
    seen = []

    def model(x, t, y=None):
        seen.append((x, t, y))
        return x

    ddpm_loss(model, schedule, x0, t, eps)
    ddpm_loss(model, schedule, x0, t, eps, y=torch.tensor([4, 5]))
    assert (
        torch.equal(seen[0][0], q_sample(schedule, x0, t, eps))
        and torch.equal(seen[0][1], t)
        and seen[0][2] is None
    )
    assert seen[1][2].tolist() == [4, 5]


@KINDS
@given(seeds, st.integers(1, 1000))
def test_clipping_rederives_epsilon(param, seed, t):
    schedule = cosine_schedule()
    out, xt = images(seed, 2, 3), images(seed + 1, 2, 3)
    pred = clip_prediction(schedule, param.decode(schedule, out, xt, t), xt, t, (-1, 1))
    assert pred.x0.abs().max() <= 1
    torch.testing.assert_close(
        q_sample(schedule, pred.x0, t, pred.eps), xt, rtol=0, atol=1e-10
    )
    inside = clip_prediction(schedule, pred, xt, t, (-1, 1))
    torch.testing.assert_close(inside.x0, pred.x0, rtol=0, atol=0)


@given(schedules(), st.floats(0.1, 20))
def test_min_snr_weights_are_one_weight_for_x0(schedule, gamma):
    """All three losses become min(SNR, γ) ‖x_0 − x̂_0‖², because ‖ε − ε̂‖² = SNR ‖x_0 −
    x̂_0‖² and ‖v − v̂‖² = (SNR + 1) ‖x_0 − x̂_0‖²."""
    t = torch.arange(1, schedule.T + 1)
    snr = schedule.snr[1:]
    want = snr.clamp(max=gamma)
    for param, factor in ((EPS, snr), (X0, torch.ones_like(snr)), (V, snr + 1)):
        torch.testing.assert_close(
            min_snr_weight(schedule, t, param, gamma) * factor, want, rtol=1e-10, atol=0
        )


def test_zero_terminal_snr_works_for_v_and_x0_and_is_refused_for_eps():
    schedule = NoiseSchedule([1.0, 0.5, 0.0])
    x0, eps = images(0, 2, 3), images(1, 2, 3)
    for param in (X0, V):
        pred = param.decode(schedule, param.target(schedule, x0, eps, 2), eps, 2)
        torch.testing.assert_close(pred.x0, x0)
        torch.testing.assert_close(pred.eps, eps)
    with pytest.raises(ValueError, match="(?i)snr|alpha_bar|signal|ᾱ"):
        EPS.decode(schedule, eps, eps, 2)


@pytest.mark.parametrize(
    "call, names",
    [
        (
            lambda: EPS.decode(
                linear_schedule(), torch.zeros(2, 6), torch.zeros(2, 3), 1
            ),
            ["(2, 3)", "(2, 6)"],
        ),
        (
            lambda: EPS.decode(
                linear_schedule(), torch.zeros(2, 3), torch.zeros(2, 3), 1001
            ),
            ["t", "1001"],
        ),
        (
            lambda: ddpm_loss(
                lambda x, t: x[:, :1],
                linear_schedule(),
                torch.zeros(2, 3),
                torch.tensor([1, 2]),
                torch.zeros(2, 3),
            ),
            ["(2, 3)", "(2, 1)"],
        ),
        (
            lambda: ddpm_loss(
                lambda x, t: x,
                linear_schedule(),
                torch.zeros(2, 3),
                torch.tensor([0, 2]),
                torch.zeros(2, 3),
            ),
            ["t", "0"],
        ),
        (
            lambda: ddpm_loss(
                lambda x, t: x,
                linear_schedule(),
                torch.zeros(2, 3),
                torch.tensor([1, 2]),
                torch.zeros(2, 3),
                reduction="sum",
            ),
            ["reduction", "sum"],
        ),
    ],
)
def test_mistakes_are_refused(call, names):
    with pytest.raises(ValueError) as refusal:
        call()
    assert all(name in str(refusal.value) for name in names), str(refusal.value)


def test_each_argument_of_a_threshold_and_of_a_clip_matters():
    x0 = torch.linspace(-2, 4, 601, dtype=torch.float64)[None]
    size = x0.abs().flatten()
    assert DynamicThreshold() == DynamicThreshold(0.995, 1.0, None)
    for threshold, s in (
        (DynamicThreshold(), size.quantile(0.995)),
        (DynamicThreshold(0.5), size.quantile(0.5)),
        (DynamicThreshold(0.5, least=3.0), 3.0),
        (DynamicThreshold(most=2.5), 2.5),
        (DynamicThreshold(0.1, least=0.2, most=0.25), 0.25),
    ):
        assert torch.equal(threshold(x0), x0.clamp(-s, s) / s), threshold
    pred, schedule = X0.decode(linear_schedule(), x0, x0, 5), linear_schedule()
    clipped = clip_prediction(schedule, pred, x0, 5, (-0.5, 2.0)).x0
    torch.testing.assert_close(clipped, x0.clamp(-0.5, 2.0), rtol=1e-12, atol=1e-12)
    for wrong in ((1, 1), (1, -1), (1,), 1.0):
        with pytest.raises(ValueError, match="clip must be"):
            clip_prediction(schedule, pred, x0, 5, wrong)


def test_half_precision_predictions_keep_their_own_digits():
    schedule = linear_schedule()
    x0, eps = images(0, 3, 2).bfloat16(), images(1, 3, 2).bfloat16()
    for param in (EPS, X0, V):
        got = param.target(schedule, x0, eps, 5)
        exact = param.target(schedule, x0.double(), eps.double(), 5)
        torch.testing.assert_close(got.double(), exact, rtol=1e-6, atol=1e-6)
        got = param.decode(schedule, x0, eps, 500)
        exact = param.decode(schedule, x0.double(), eps.double(), 500)
        torch.testing.assert_close(got.x0.double(), exact.x0, rtol=1e-5, atol=1e-5)


def test_numpys_integers_are_times():
    x, t = images(0, 2, 3), np.int64(7)
    net = lambda x, t: x * t[:, None]
    denoiser = Denoiser(net, linear_schedule(), V, (-1, 1))
    assert torch.equal(denoiser(x, t).x0, denoiser(x, 7).x0)
    assert min_snr_weight(linear_schedule(), t) == min_snr_weight(linear_schedule(), 7)


def test_what_cannot_be_decoded_is_refused_with_its_reason():
    schedule, x = NoiseSchedule([1.0, 0.5, 0.0]), torch.zeros(2, 3)
    noise, clean = "alpha_bar is 0 and xt is pure noise", "alpha_bar is 1 and xt is fre"
    for param, t, reason in (
        (EPS, 2, f"of eps cannot be decoded where {noise}"),
        (EPS, torch.tensor([1, 2]), noise),
        (X0, 0, f"of x0 cannot be decoded where {clean}"),
        (X0, torch.tensor([0, 1]), clean),
        (X0, torch.tensor([0, 2]), clean),
    ):
        with pytest.raises(ValueError, match=reason):
            param.decode(schedule, x, x, t)
    for param, t in ((EPS, 0), (V, 0), (V, 2), (X0, 2)):
        assert param.decode(schedule, x, x, t).x0.isfinite().all()


def test_one_time_for_each_image_or_one_for_all():
    schedule, x, t = linear_schedule(), torch.zeros(2, 3), torch.tensor([1, 2, 3])
    for call in (
        lambda: V.decode(schedule, x, x, t),
        lambda: V.target(schedule, x, x, t),
    ):
        with pytest.raises(ValueError, match="t must have one time for each of the 2"):
            call()
    with pytest.raises(ValueError, match="eps must have the shape of x0"):
        V.target(schedule, x, x[:1], 3)


@pytest.mark.parametrize(
    "options, names",
    [
        (dict(quantile=0.0), ["quantile must lie in (0, 1]", "0.0"]),
        (dict(quantile=1.1), ["quantile must lie in (0, 1]", "1.1"]),
        (dict(least=0.0), ["least must be positive", "0.0"]),
        (dict(most=0.9), ["most must be None or at least `least`, 1.0", "0.9"]),
    ],
)
def test_thresholds_that_are_none_are_refused(options, names):
    with pytest.raises(ValueError) as refusal:
        DynamicThreshold(**options)
    assert all(name in str(refusal.value) for name in names), str(refusal.value)
    DynamicThreshold(1.0, 0.5, 0.5)  # on the borders


def test_quantiles_are_taken_of_as_many_numbers_as_any_torch_takes(monkeypatch):
    "2^24 (older versions refuse more), and of as many images at a time as that holds."
    taken, quantile = [], torch.Tensor.quantile

    def noted(part, *args, **options):
        taken.append(tuple(part.shape))
        return quantile(part, *args, **options)

    monkeypatch.setattr(torch.Tensor, "quantile", noted)
    for shape, want in (
        ((3, 2**23), [2, 1]),
        ((3, 2**22, 1), [3]),
        ((2, 2**23 + 1), [1, 1]),
        ((2, 2**24), [1, 1]),
        ((5, 2**22 + 1), [3, 2]),
        ((2**23 + 3, 2), [2**23, 3]),
        ((4, 1, 2, 3), [4]),
    ):
        taken.clear()
        x0 = torch.zeros(shape, device="meta")  # it has no values: this is quick
        assert DynamicThreshold()(x0).shape == shape
        assert [part[0] for part in taken] == want
        assert {part[1] for part in taken} == {x0[0].numel()}


def test_a_threshold_of_its_own_for_each_image():
    x0 = images(0, 4, 1, 5, 5) * torch.tensor([0.1, 1, 2, 9])[:, None, None, None]
    together = DynamicThreshold(0.9)(x0)
    for i in range(4):
        torch.testing.assert_close(
            together[i : i + 1], DynamicThreshold(0.9)(x0[i : i + 1])
        )
    torch.testing.assert_close(together[0], x0[0])  # within [-1, 1] it stays
    half = DynamicThreshold(0.9)(x0.half())
    torch.testing.assert_close(half, DynamicThreshold(0.9)(x0.half().float()))
    assert DynamicThreshold()(x0[:0]).shape == (0, 1, 5, 5)


def test_clipping_takes_a_list_and_no_clean_data():
    x, schedule = images(0, 2, 3), linear_schedule()
    pred = Prediction(x, x)
    pair = clip_prediction(schedule, pred, x, 5, (-0.5, 0.5))
    assert torch.equal(clip_prediction(schedule, pred, x, 5, [-0.5, 0.5]).eps, pair.eps)
    threshold = DynamicThreshold(0.5, least=0.1)
    cut = clip_prediction(schedule, pred, x, 5, threshold)
    want = X0.decode(schedule, threshold(x), x, 5)
    assert torch.equal(cut.x0, want.x0) and torch.equal(cut.eps, want.eps)
    assert not torch.equal(cut.x0, x)
    for clip in ((-1, 1), DynamicThreshold()):
        with pytest.raises(ValueError, match=r"t must lie in 1\.\.1000, got 0"):
            clip_prediction(schedule, pred, x, 0, clip)


def test_a_denoiser_asks_as_it_is_asked():
    seen = []

    def model(x, t, *y):
        seen.append((x, t, y))
        return 2 * x

    schedule, x, y = linear_schedule(), images(0, 2, 3), torch.tensor([4, 5])
    denoiser = Denoiser(model, schedule)
    assert denoiser.param == EPS and denoiser.clip is None
    for t in (7, torch.tensor([7, 7])):
        for labels in (None, y):
            got = denoiser(x, t, labels)
            want = EPS.decode(schedule, 2 * x, x, 7)
            torch.testing.assert_close(got.x0, want.x0, rtol=1e-14, atol=0)
    there = torch.zeros(2, 3, device="meta")
    assert denoiser(there, 7).x0.is_meta and seen.pop()[1].is_meta
    for i, (shown, times, labels) in enumerate(seen):
        assert shown is x and torch.equal(times, torch.tensor([7, 7]))
        assert labels == ((y,) if i % 2 else ())


@KINDS
def test_the_loss_is_the_mean_of_the_squares_of_each_image(param):
    schedule, t = linear_schedule(), torch.tensor([3, 700])
    x0, eps = images(0, 2, 1, 4, 3).bfloat16(), images(1, 2, 1, 4, 3).bfloat16()
    weight = torch.tensor([0.5, 3.0], dtype=torch.float64)
    model = lambda x, t: x.bfloat16()
    target = param.target(schedule, x0, eps, t)
    errors = (target - q_sample(schedule, x0, t, eps).bfloat16().float()) ** 2
    want = torch.stack([error.mean() for error in errors])
    for options, expected in (
        (dict(), want.mean()),
        (dict(reduction="none"), want),
        (dict(weight=weight), (weight.float() * want).mean()),
        (dict(weight=weight, reduction="none"), weight.float() * want),
    ):
        got = ddpm_loss(model, schedule, x0, t, eps, param, **options)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
        assert got.dtype == torch.float32
    for wrong in (weight[:1], weight[:, None]):
        with pytest.raises(ValueError, match=r"weight must have shape \(2,\), one for"):
            ddpm_loss(model, schedule, x0, t, eps, param, weight=wrong)


def test_min_snr_weights_have_their_defaults_and_refuse():
    schedule = linear_schedule()
    for t in (1, 300, 1000):
        snr = schedule.snr[t].item()
        for args, want in (
            ((), min(5 / snr, 1)),
            ((EPS, 2.0), min(2 / snr, 1)),
            ((X0,), min(snr, 5)),
            ((V,), min(snr, 5) / (snr + 1)),
        ):
            got = min_snr_weight(schedule, t, *args).item()
            assert got == pytest.approx(want, rel=1e-12)
    other = type(EPS)("score", lambda signal, noise: (0, -1 / noise))
    for call, message in (
        (lambda: min_snr_weight(schedule, 0), r"t must lie in 1\.\.1000, got 0"),
        (lambda: min_snr_weight(schedule, 1, gamma=0.0), "gamma must be positive"),
        (lambda: min_snr_weight(schedule, 1, other), "param must be EPS, X0 or V"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
