"""The variational bound against its closed forms, and the oracle against the density
whose score it claims to be."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import images, schedules, seeds

from ddpm_lit import EPS, V, X0, Denoiser, GaussianMixtureOracle, NoiseSchedule
from ddpm_lit import linear_schedule
from ddpm_lit import q_sample
from ddpm_lit import vlb_terms
from ddpm_lit.elbo import decoder_log_prob, vlb_weight
from ddpm_lit.gaussian import Gaussian

SCHEDULE = linear_schedule(30, 1e-3, 0.3)


@given(schedules(), seeds)
def test_terms_of_a_blind_model(schedule, seed):
    "A model that always says x̂_0 = 0.1: every term has a closed form."
    x0 = images(seed, 2, 3)

    def blind(x, t):
        return torch.full_like(x, 0.1)

    terms = vlb_terms(Denoiser(blind, schedule, X0), x0, levels=None)
    assert terms.kl.shape == (
        2,
        schedule.T - 1,
    ) and terms.prior.shape == terms.reconstruction.shape == (2,)
    error, snr, log2 = (x0 - 0.1).square().mean(1), schedule.snr, math.log(2)
    # L_{t−1} = ½ (SNR(t−1) − SNR(t)) ‖x_0 − x̂_0‖²
    want = 0.5 * (snr[1:-1] - snr[2:]) * error[:, None] / log2
    torch.testing.assert_close(terms.kl, want, rtol=1e-8, atol=1e-12)
    abar = schedule.alpha_bar[-1]
    torch.testing.assert_close(
        terms.prior,
        0.5 * (abar * (x0.square().mean(1) - 1) - torch.log1p(-abar)) / log2,
        rtol=1e-6,
        atol=1e-12,
    )
    beta = schedule.beta[1]
    torch.testing.assert_close(
        terms.reconstruction,
        0.5 * (error / beta + (2 * math.pi * beta).log()) / log2,
        rtol=1e-8,
        atol=1e-10,
    )
    torch.testing.assert_close(
        terms.total, terms.prior + terms.kl.sum(1) + terms.reconstruction
    )


@given(schedules(), seeds)
def test_terms_with_the_larger_variance(schedule, seed):
    "KL of N(μ̃, β̃) from N(μ, β): ½ (log β/β̃ + β̃/β − 1 + (μ̃ − μ)²/β)."
    x0 = images(seed, 2, 3)
    kl = vlb_terms(
        Denoiser(lambda x, t: torch.zeros_like(x), schedule, X0),
        x0,
        variance="beta",
        levels=None,
    ).kl
    for t in range(2, schedule.T + 1):
        before, now, beta = (
            schedule.alpha_bar[t - 1],
            schedule.alpha_bar[t],
            schedule.beta[t],
        )
        share = (1 - before) / (1 - now)
        mean_error = (before.sqrt() * beta / (1 - now)) ** 2 * x0.square().mean(1)
        want = 0.5 * (-share.log() + share - 1 + mean_error / beta) / math.log(2)
        torch.testing.assert_close(kl[:, t - 2], want, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("param", [EPS, X0, V], ids=lambda p: p.name)
def test_the_bound_on_gaussian_data(param):
    """Every term has its exact mean, E L_{t−1} = ½ (SNR(t−1) − SNR(t)) Var(x_0 | x_t),
    and the sum is not below the entropy."""
    mean, var, schedule = 0.2, 0.3, linear_schedule(60, 0.05, 0.15)
    oracle = GaussianMixtureOracle(schedule, [1.0], [[mean]], [var], param)
    x0 = mean + math.sqrt(var) * images(0, 4000, 1)
    terms = vlb_terms(
        Denoiser(oracle, schedule, param),
        x0,
        levels=None,
        generator=torch.Generator().manual_seed(0),
    )
    abar, snr = schedule.alpha_bar, schedule.snr
    spread = var * (1 - abar) / (abar * var + 1 - abar)
    want = 0.5 * (snr[1:-1] - snr[2:]) * spread[2:] / math.log(2)
    # five standard errors of the mean of 4000 squares
    torch.testing.assert_close(terms.kl.mean(0), want, rtol=0.12, atol=1e-6)
    entropy = (
        0.5
        * (math.log(2 * math.pi * var) + (x0 - mean).square().mean().item() / var)
        / math.log(2)
    )
    assert entropy < terms.total.mean().item() < entropy + 0.6


@given(st.floats(-1.5, 1.5), st.floats(1e-6, 4.0), st.sampled_from([2, 3, 17, 256]))
def test_the_decoder_is_a_distribution_over_the_levels(mean, var, levels):
    values = (2 * torch.arange(levels, dtype=torch.float64) / (levels - 1) - 1)[:, None]
    log_p = decoder_log_prob(
        Gaussian(torch.full_like(values, mean), torch.tensor(var).double()),
        values,
        levels,
    )
    assert not log_p.isnan().any() and (log_p <= 1e-12).all()
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    "options, names",
    [
        (dict(variance="large"), ["variance", "large"]),
        (dict(levels=1), ["levels", "1"]),
        (dict(x0=torch.full((1, 2), 1.5)), ["x0", "1.5", "[-1, 1]"]),
    ],
)
def test_mistakes_are_refused(options, names):
    x0 = options.pop("x0", torch.zeros(1, 2))
    with pytest.raises(ValueError) as refusal:
        vlb_terms(Denoiser(lambda x, t: x, SCHEDULE), x0, **options)
    assert all(name in str(refusal.value) for name in names), str(refusal.value)


# The oracle

MIXTURE = dict(
    weights=[1.0, 3.0], means=[[0.5, -0.3], [-0.6, 0.2]], variances=[0.1, 0.02]
)


@given(st.integers(1, SCHEDULE.T), seeds)
def test_the_oracle_is_the_score(t, seed):
    "E[ε | x_t] = −√(1−ᾱ_t) ∇ log q(x_t), with the density written here once more."
    x = images(seed, 4, 2).requires_grad_()
    abar = SCHEDULE.alpha_bar[t]
    logs = [
        math.log(w / 4)
        - ((x - abar.sqrt() * torch.tensor(m).double()) ** 2).sum(1)
        / (2 * (abar * v + 1 - abar))
        - (2 * math.pi * (abar * v + 1 - abar)).log()
        for w, m, v in zip(MIXTURE["weights"], MIXTURE["means"], MIXTURE["variances"])
    ]
    (score,) = torch.autograd.grad(torch.logsumexp(torch.stack(logs), 0).sum(), x)
    eps = GaussianMixtureOracle(SCHEDULE, **MIXTURE)(x.detach(), torch.full((4,), t))
    torch.testing.assert_close(eps, -(1 - abar).sqrt() * score, rtol=1e-6, atol=1e-6)


@given(st.integers(1, SCHEDULE.T), seeds)
def test_the_three_oracles_agree(t, seed):
    x, times = images(seed, 4, 2), torch.full((4,), t)
    preds = [
        p.decode(
            SCHEDULE,
            GaussianMixtureOracle(SCHEDULE, **MIXTURE, param=p)(x, times),
            x,
            t,
        )
        for p in (EPS, X0, V)
    ]
    for pred in preds:
        torch.testing.assert_close(pred.x0, preds[1].x0, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(
            q_sample(SCHEDULE, pred.x0, t, pred.eps), x, rtol=1e-8, atol=1e-8
        )


def test_no_other_prediction_is_better():
    "The mean squared error of the oracle is smaller than that of any nearby answer."
    oracle = GaussianMixtureOracle(SCHEDULE, **MIXTURE)
    x0, eps = (
        oracle.sample(20_000, torch.Generator().manual_seed(0)),
        images(1, 20_000, 2),
    )
    t = torch.full((20_000,), 10)
    out = oracle(q_sample(SCHEDULE, x0, t, eps), t)
    best = (out - eps).square().mean()
    for change in (out * 0.95, out * 1.05, out + 0.05, out - 0.05):
        assert (change - eps).square().mean() > best


def test_each_argument_of_the_bound_matters():
    "Labels, levels, the type of the images and the generator."
    x0 = 2 * torch.arange(6).reshape(2, 3).bfloat16() / 8 - 1  # of 9 levels
    labels = torch.tensor([0.2, -0.4])

    def told(x, t, y=None):
        return torch.zeros_like(x) if y is None else y[:, None].expand_as(x)

    def terms(y=labels, seed=0, x0=x0, **options):
        generator = torch.Generator().manual_seed(seed)
        options = dict(levels=9, generator=generator) | options
        return vlb_terms(Denoiser(told, SCHEDULE, X0), x0, y=y, **options)

    def blind(value):
        model = lambda x, t: torch.full_like(x, value)
        return vlb_terms(Denoiser(model, SCHEDULE, X0), x0, levels=9)

    for i, value in enumerate(labels.tolist()):
        assert terms().total[i].item() == pytest.approx(blind(value).total[i].item())
    assert (terms(y=None).kl != terms().kl).all()
    exact = terms(x0=x0.double())
    assert terms().kl.dtype == torch.float32
    torch.testing.assert_close(terms().total.double(), exact.total, rtol=1e-5, atol=0)
    with pytest.raises(ValueError, match="levels=17"):
        terms(x0=x0 + 0.125 / 4, levels=17)
    last = Gaussian(labels[:, None].expand(2, 3).double(), SCHEDULE.beta[1])
    for levels in (9, 17, np.int64(17)):
        bits = -decoder_log_prob(last, x0.double(), levels).mean(1) / math.log(2)
        got = terms(x0=x0.double(), levels=levels).reconstruction
        torch.testing.assert_close(got, bits, rtol=1e-6, atol=0)
    noisy = Denoiser(lambda x, t: x, SCHEDULE, X0)
    draws = [
        vlb_terms(noisy, x0, levels=9, generator=torch.Generator().manual_seed(i)).kl
        for i in (0, 0, 1)
    ]
    assert torch.equal(*draws[:2]) and not torch.equal(*draws[1:])


def test_the_decoder_takes_an_image_for_each_mean_alone():
    column = torch.zeros(8, 1)
    with pytest.raises(ValueError, match=r"x0 must have the shape of the mean of p"):
        decoder_log_prob(Gaussian(torch.zeros(8), torch.tensor(0.1)), column, 3)


def test_labels_below_zero_and_above_the_null_are_refused():
    oracle = GaussianMixtureOracle(SCHEDULE, **MIXTURE)
    x, t = images(0, 1, 2), torch.tensor([3])
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=r"y must lie in 0\.\.2"):
            oracle(x, t, torch.tensor([wrong]))


def test_draws_come_from_their_generator_alone():
    oracle = GaussianMixtureOracle(SCHEDULE, **MIXTURE)
    draws = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        draws.append(oracle.sample(5, torch.Generator().manual_seed(2)))
    assert torch.equal(*draws) and draws[0].dtype == torch.float64


@pytest.mark.parametrize(
    "change, names",
    [
        (dict(weights=[1.0]), ["weights", "2 positive numbers", "[1.0]"]),
        (dict(weights=[1.0, 0.0]), ["weights", "2 positive numbers", "[1.0, 0.0]"]),
        (dict(weights=[1.0, 2.0, 3.0]), ["weights", "2 positive numbers"]),
        (dict(variances=[0.1]), ["variances", "2 numbers >= 0", "[0.1]"]),
        (dict(variances=[0.1, -0.1]), ["variances", "2 numbers >= 0", "-0.1"]),
        (dict(variances=[0.1, 0.2, 0.3]), ["variances", "2 numbers >= 0"]),
    ],
)
def test_mixtures_that_are_none_are_refused(change, names):
    with pytest.raises(ValueError) as refusal:
        GaussianMixtureOracle(SCHEDULE, **MIXTURE | change)
    assert all(name in str(refusal.value) for name in names), str(refusal.value)
    kept = dict(variances=[0.0, 0.5])  # single images are a mixture
    assert GaussianMixtureOracle(SCHEDULE, **MIXTURE | kept).variances[0] == 0


def test_what_an_oracle_cannot_be_asked_is_refused():
    oracle = GaussianMixtureOracle(SCHEDULE, [1.0], torch.zeros(1, 3, 4), [0.1])
    x, t = images(0, 2, 3, 4), torch.tensor([3, 4])
    for call, message in (
        (lambda: oracle(x[:, :1], t), r"x must have shape \(B, 3, 4\).*\(2, 1, 4\)"),
        (lambda: oracle.log_prob(x.mT, t), r"x must have shape \(B, 3, 4\)"),
        (lambda: oracle(x, t - 3), r"t must lie in 1\.\.30, got 0"),
        (lambda: oracle.variance(x, 0 * t), r"t must lie in 1\.\.30, got 0"),
        (lambda: oracle(x, t, t.float()), r"y must be int64 of shape \(2,\)"),
        (lambda: oracle(x, t, t[:1]), r"y must be int64 of shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert oracle.log_prob(x, 0 * t).shape == (2,)


@pytest.mark.parametrize("t", [0, 7])
def test_the_density_of_the_oracle(t):
    "log Σ_k w_k N(x; √ᾱ m_k, ᾱ v_k + 1 − ᾱ), written once more, with its constants."
    x, abar = images(0, 3, 2), SCHEDULE.alpha_bar[t]
    want = torch.zeros(3, dtype=torch.float64)
    for w, m, v in zip(*(MIXTURE[name] for name in ("weights", "means", "variances"))):
        var = abar * v + 1 - abar
        gap = x - abar.sqrt() * torch.tensor(m).double()
        want += w / 4 * (-gap.square().sum(1) / (2 * var)).exp() / (2 * math.pi * var)
    oracle = GaussianMixtureOracle(SCHEDULE, **MIXTURE)
    torch.testing.assert_close(oracle.log_prob(x, t), want.log(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(
        oracle.log_prob(x, torch.full((3,), t)), oracle.log_prob(x, t)
    )


def test_a_sample_is_a_component_and_its_noise():
    oracle = GaussianMixtureOracle(SCHEDULE, **MIXTURE)
    got = oracle.sample(4, torch.Generator().manual_seed(2))
    g = torch.Generator().manual_seed(2)
    k = torch.multinomial(oracle.weights, 4, replacement=True, generator=g)
    noise = torch.randn(4, 2, dtype=torch.float64, generator=g)
    want = oracle.means[k] + oracle.variances[k].sqrt()[:, None] * noise
    torch.testing.assert_close(got, want, rtol=1e-14, atol=0)
    assert oracle.weights.tolist() == [0.25, 0.75]


def test_an_oracle_answers_where_it_is_asked():
    oracle = GaussianMixtureOracle(SCHEDULE, **MIXTURE)
    x, t = torch.zeros(2, 2, device="meta"), torch.tensor([3, 4], device="meta")
    for made in (oracle(x, t, t), oracle.variance(x, t, t), oracle.log_prob(x, t)):
        assert made.is_meta


def test_the_variance_of_the_oracle():
    "The derivative of the posterior mean: Var(x_0 | x_t) = (1−ᾱ)/√ᾱ ∂x̂_0/∂x_t."
    oracle, t = GaussianMixtureOracle(SCHEDULE, **MIXTURE, param=X0), torch.tensor([9])
    abar, x = SCHEDULE.alpha_bar[9], images(3, 1, 2)
    for y in (None, torch.tensor([0]), oracle.null(torch.tensor([1]))):
        slope = torch.autograd.functional.jacobian(lambda x: oracle(x, t, y), x)
        want = (1 - abar) / abar.sqrt() * slope[0, :, 0].diagonal()
        got = oracle.variance(x, t, y)
        torch.testing.assert_close(got[0], want, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(oracle(x, t, oracle.null(t)), oracle(x, t))


@pytest.mark.parametrize("param", [EPS, X0, V], ids=lambda p: p.name)
@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_the_weights_of_the_bound(param, variance):
    "(√ᾱ_s β/(1−ᾱ_t))²/(2σ_t²) for x_0, and what ε and v make of an error of x_0."
    schedule = SCHEDULE
    abar, beta = schedule.alpha_bar, schedule.beta[1:]
    now, before = abar[1:], abar[:-1]
    var = beta.clone()
    if variance == "posterior":
        var[1:] *= (1 - before[1:]) / (1 - now[1:])
    want = before * (beta / (1 - now)) ** 2 / (2 * var)
    want = want * {EPS: (1 - now) / now, X0: 1.0, V: 1 - now}[param]
    t = torch.arange(1, schedule.T + 1)
    got = vlb_weight(schedule, t, param, variance)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
    one = vlb_weight(schedule, schedule.T, param, variance)
    torch.testing.assert_close(one, want[-1], rtol=1e-9, atol=0)


def test_the_weights_of_the_bound_where_no_signal_is_left():
    schedule = NoiseSchedule([1.0, 0.5, 0.0])
    assert vlb_weight(schedule, 2, X0) == vlb_weight(schedule, 2, V) == 0.5
    with pytest.raises(ValueError, match="a loss of eps has an infinite weight"):
        vlb_weight(schedule, 2)
    with pytest.raises(ValueError, match="variance must be 'posterior' or 'beta'"):
        vlb_weight(schedule, 1, variance="large")
    assert vlb_weight(SCHEDULE, 7) == vlb_weight(SCHEDULE, 7, EPS, "posterior")


@pytest.mark.parametrize("levels", [2, 3, 256])
def test_the_decoder_against_differences_of_the_distribution_function(levels):
    "DDPM eq. 13 in plain floats; the outermost bins reach to infinity."
    grid = (2 * torch.arange(levels, dtype=torch.float64) / (levels - 1) - 1)[None]
    mean, var = 0.2 * grid + 0.1, torch.tensor(0.09, dtype=torch.float64)
    got, half = decoder_log_prob(Gaussian(mean, var), grid, levels), 1 / (levels - 1)
    below = lambda x, m: (1 + math.erf((x - m) / math.sqrt(0.18))) / 2
    for k, (x, m) in enumerate(zip(grid[0].tolist(), mean[0].tolist())):
        high = 1.0 if k == levels - 1 else below(x + half, m)
        low = 0.0 if k == 0 else below(x - half, m)
        assert got[0, k].item() == pytest.approx(math.log(high - low), rel=1e-7)
    if levels == 256:
        assert torch.equal(decoder_log_prob(Gaussian(mean, var), grid), got)


def test_the_decoder_keeps_its_digits_in_both_tails():
    x0 = torch.tensor([[-1 / 3, 1 / 3, -1.0, 1.0]], dtype=torch.float64)
    sides = torch.tensor([[9.0, -9.0, 9.0, -9.0]], dtype=torch.float64)
    var = torch.tensor(0.01, dtype=torch.float64)
    log_p = decoder_log_prob(Gaussian(sides, var), x0, 4)
    ends = torch.tensor([-9.0, -2 / 3 - 9], dtype=torch.float64) / 0.1
    want = torch.special.log_ndtr(ends)  # where the tail begins is all that counts
    torch.testing.assert_close(log_p[0, ::2], want, rtol=1e-9, atol=0)
    torch.testing.assert_close(log_p[0, 1::2], want, rtol=1e-9, atol=0)


def test_values_between_the_levels_are_refused_from_a_hundredth_on():
    p = Gaussian(torch.zeros(1, 1, dtype=torch.float64), torch.tensor(0.1))
    level = 2 / 16
    for k, off in ((0, 0.005), (5, -0.009), (5, 0.009), (16, -0.009)):
        decoder_log_prob(p, torch.tensor([[-1 + (k + off) * level]]).double(), 17)
    for k, off, below in ((0, 0.011, 0), (5, -0.011, 4), (5, 0.5, 5), (16, -0.011, 15)):
        x0 = torch.tensor([[-1 + (k + off) * level]], dtype=torch.float64)
        with pytest.raises(ValueError, match=f"levels=17, got .* between k = {below} "):
            decoder_log_prob(p, x0, 17)
    for wrong in (1, 2.0, True, None):
        with pytest.raises(ValueError, match="levels must be an integer >= 2"):
            decoder_log_prob(p, torch.zeros(1, 1), wrong)
    for outside in (-1.001, 1.001, math.nan):
        with pytest.raises(ValueError, match=r"x0 must lie in \[-1, 1\]"):
            decoder_log_prob(p, torch.full((1, 1), outside), 17)


def test_each_time_of_the_bound_is_asked_once_with_noise_of_its_own():
    asked = []
    model = lambda x, t: asked.append((t.tolist(), x)) or 0 * x
    x0, g = torch.ones(2, 3, dtype=torch.float64), torch.Generator().manual_seed(4)
    terms = vlb_terms(Denoiser(model, SCHEDULE, X0), x0, generator=g)
    g.manual_seed(4)
    for t, (times, x) in zip(range(SCHEDULE.T, 0, -1), asked, strict=True):
        eps = torch.randn(2, 3, generator=g, dtype=torch.float64)
        assert times == [t, t]
        assert torch.equal(x, q_sample(SCHEDULE, x0, t, eps))
    again = vlb_terms(Denoiser(model, SCHEDULE, X0), x0, levels=256)
    assert torch.equal(terms.total, again.total)  # x̂_0 = 0, whatever it is shown
    last = Gaussian(0 * x0, SCHEDULE.beta[1])
    bits = -decoder_log_prob(last, x0).mean(1) / math.log(2)
    torch.testing.assert_close(terms.reconstruction, bits)
    for levels in (None, 256):
        with pytest.raises(ValueError, match="variance must be 'posterior' or 'beta'"):
            vlb_terms(Denoiser(model, SCHEDULE), x0, variance="large", levels=levels)
    asked.clear()
    with pytest.raises(ValueError, match="x0 must lie in"):
        vlb_terms(Denoiser(model, SCHEDULE, X0), 9 * x0)
    assert not asked  # refused at once, and not after T calls
    got = vlb_terms(Denoiser(model, SCHEDULE, X0), 9 * x0, levels=None)
    assert got.total.isfinite().all()  # a density is asked for any values
