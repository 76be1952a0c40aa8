"""Samplers: the pairs they walk, and each of their steps against an exact recursion on
Gaussian data."""

import math
import warnings
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from strategies import images, schedules, seeds

from ddpm_lit import DDIM, DDPM, EPS, V, X0, Denoiser, GaussianMixtureOracle
from ddpm_lit import NoiseSchedule
from ddpm_lit import Prediction, Step, cosine_schedule, ddim_encode, linear_schedule
from ddpm_lit import sample, sample_steps, scaled_linear_schedule, sigmoid_schedule
from ddpm_lit import zero_terminal_snr
from ddpm_lit.ddpm import time_pairs, time_steps

SPACINGS = ["trailing", "leading", "linspace", "quadratic"]
M, VAR = 0.3, 0.25  # the data: N(0.3, 0.25)


# The list of pairs


@given(st.integers(1, 1000), st.sampled_from(SPACINGS), st.data())
def test_pairs_are_as_many_as_asked_fall_and_end_at_0(T, spacing, data):
    S = data.draw(st.integers(1, T))
    pairs = time_pairs(T, S, spacing)
    times = [t for t, _ in pairs]
    assert len(pairs) == S == len(set(times))
    assert (
        all(s < t for t, s in pairs)
        and pairs[-1][1] == 0
        and 1 <= times[-1]
        and times[0] <= T
    )
    assert [s for _, s in pairs] == times[1:] + [0]
    first = T if S == 1 or spacing != "leading" else (S - 1) * (T // S) + 1
    assert times[0] == first


def test_pairs_for_every_number_of_steps_of_a_small_T():
    for spacing, T in product(SPACINGS, (1, 2, 3, 7, 20, 50)):
        for S in range(1, T + 1):
            times = [t for t, _ in time_pairs(T, S, spacing)]
            assert (
                len(set(times)) == S
                and times == sorted(times, reverse=True)
                and 1 <= times[-1]
                and times[0] <= T
            )


def test_published_times():
    """With ten of a thousand steps (theirs are ours − 1): leading 900…0, linspace
    999…0, trailing 999…99."""

    def zero_based(spacing):
        return [t - 1 for t, _ in time_pairs(1000, 10, spacing)]

    assert zero_based("leading") == list(range(900, -1, -100))
    assert zero_based("linspace") == list(range(999, -1, -111))
    assert zero_based("trailing") == list(range(999, 98, -100))
    quadratic = time_pairs(1000, 50, "quadratic")
    assert len(quadratic) == 50 and quadratic[0][0] == 1000


def test_quadratic_times_are_exact():
    "0.29 * 100 is less than 29 in floating point."
    assert time_steps(100, 2, "quadratic", quad_end=0.29) == [30, 1]


def test_all_steps_are_all_steps_whatever_the_spacing():
    for spacing in SPACINGS:
        assert time_pairs(20, 20, spacing) == [(t, t - 1) for t in range(20, 0, -1)]
    assert (
        time_pairs(20)
        == DDPM().pairs(linear_schedule(20, 1e-3, 0.3))
        == [(t, t - 1) for t in range(20, 0, -1)]
    )
    assert time_pairs(20, timesteps=(17, 5, 2)) == [(17, 5), (5, 2), (2, 0)]


# Each step is affine in x and in the noise, so its mean and variance compose exactly


def affine(sampler, schedule, oracle, param, t, s):
    "(a, b, c) with x_s = a·x_t + b + c·noise, measured on the sampler."
    x, noise = (
        torch.tensor([[0.0], [1.0], [0.0]]).double(),
        torch.tensor([[0.0], [0.0], [1.0]]).double(),
    )
    pred = param.decode(schedule, oracle(x, torch.full((3,), t)), x, t)
    b, with_x, with_noise = sampler.step(schedule, x, pred, t, s, noise)[:, 0].tolist()
    return with_x - b, b, with_noise - b


def exact(schedule, t, s, sampler):
    """The same (a, b, c) from the papers' formulas and the exact E[x_0 | x_t], in plain
    floats."""
    abar_s, abar_t = schedule.alpha_bar[s].item(), schedule.alpha_bar[t].item()
    alpha, beta = abar_t / abar_s, (abar_s - abar_t) / abar_s
    total = abar_t * VAR + 1 - abar_t
    k0 = math.sqrt(abar_t) * VAR / total  # x̂_0 = k0 x_t + k1
    k1 = M - k0 * math.sqrt(abar_t) * M
    tilde = (1 - abar_s) / (1 - abar_t) * beta
    if isinstance(sampler, DDPM):  # DDPM eqs. 6 and 7
        c0, ct = (
            math.sqrt(abar_s) * beta / (1 - abar_t),
            math.sqrt(alpha) * (1 - abar_s) / (1 - abar_t),
        )
        var = tilde if sampler.variance == "posterior" else beta
        return ct + c0 * k0, c0 * k1, 0.0 if s == 0 else math.sqrt(var)
    var = sampler.eta**2 * tilde  # DDIM eqs. 12 and 16
    direction = math.sqrt(max(1 - abar_s - var, 0.0)) / math.sqrt(1 - abar_t)
    signal = math.sqrt(abar_s) - direction * math.sqrt(abar_t)
    return direction + signal * k0, signal * k1, math.sqrt(var)


def composed(steps):
    "Mean and variance at time 0 after `steps`, from N(0, 1)."
    mean, var = 0.0, 1.0
    for a, b, c in steps:
        mean, var = a * mean + b, a * a * var + c * c
    return mean, var


SCHEDULES = {
    "linear": linear_schedule(200, 5e-4, 0.1),
    "scaled linear": scaled_linear_schedule(200, 4e-3, 0.06),
    "cosine": cosine_schedule(200),
    "sigmoid": sigmoid_schedule(200),
    "betas": NoiseSchedule.from_betas(
        [0.02, 0.3, 0.01, 0.2, 0.05, 0.4, 0.1, 0.6, 0.3, 0.7]
    ),
    "no signal at the end": zero_terminal_snr(linear_schedule(200, 5e-4, 0.1)),
}
SPREADS = {
    **{spacing: dict(steps=7, spacing=spacing) for spacing in SPACINGS},
    "a list": dict(timesteps=(10, 9, 4, 2)),
    "one step": dict(steps=1),
    "all": dict(steps=None),
}
SAMPLERS = [
    *(partial(DDPM, variance=variance) for variance in ("posterior", "beta")),
    *(partial(DDIM, eta=eta) for eta in (0.0, 0.2, 0.5, 1.0)),
]


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize(
    "kind, param",
    [
        (kind, param)
        for kind in SCHEDULES
        for param in (EPS, X0, V)
        if param is not EPS or SCHEDULES[kind].snr[-1] > 0
    ],
    ids=lambda p: getattr(p, "name", p),
)
def test_a_walk_has_the_exact_mean_and_variance(kind, param, spread):
    """Every step's coefficients, and their composition, against the papers' formulas in
    plain floats, for each variance of DDPM and four η."""
    schedule = SCHEDULES[kind]
    oracle = GaussianMixtureOracle(schedule, [1.0], [[M]], [VAR], param)
    # x̂_0 of the first step is a difference that ᾱ_T multiplies by up to 1e4
    coarse = 1e-8 if param is EPS and schedule.snr[-1] < 1e-5 else 1e-11
    for make in SAMPLERS:
        sampler = make(**SPREADS[spread])
        pairs = sampler.pairs(schedule)
        got = [affine(sampler, schedule, oracle, param, t, s) for t, s in pairs]
        want = [exact(schedule, t, s, sampler) for t, s in pairs]
        for (t, s), g, w in zip(pairs, got, want):
            assert g == pytest.approx(w, abs=coarse if t == schedule.T else 1e-11), (
                sampler,
                t,
                s,
            )
        assert composed(got) == pytest.approx(composed(want), rel=1e-10, abs=1e-10), (
            sampler
        )


def two_sample(x, y):
    "p-value of the Kolmogorov–Smirnov test that two samples have one law."
    return ks_2samp(x.flatten().numpy(), y.flatten().numpy()).pvalue


HILLS = dict(weights=[0.4, 0.6], means=[[-0.6], [0.5]], variances=[0.04, 0.02])


@pytest.mark.parametrize(
    "make, param, kind",
    [
        (partial(DDPM, variance="posterior"), EPS, "linear"),
        (partial(DDPM, variance="beta"), V, "linear"),
        (partial(DDIM, None, 0.0), X0, "cosine"),
        (partial(DDIM, None, 0.5), V, "cosine"),
        (partial(DDIM, 250, 1.0), X0, "linear"),
        (partial(DDIM, 250, 0.0, "quadratic"), EPS, "linear"),
        (partial(DDIM, None, 0.0), V, "no signal at the end"),
    ],
    ids=str,
)
def test_a_mixture_comes_back(make, param, kind):
    """3000 samples beside 3000 draws of the data cannot be told apart at the level of 1
    in 1000; shifted by a tenth, they can (seeds fixed)."""
    schedule = {
        "linear": linear_schedule(),
        "cosine": cosine_schedule(),
        "no signal at the end": zero_terminal_snr(linear_schedule()),
    }[kind]
    oracle = GaussianMixtureOracle(schedule, **HILLS, param=param)
    g = torch.Generator().manual_seed(3)
    x = sample(
        Denoiser(oracle, schedule, param),
        torch.randn(3000, 1, generator=g, dtype=torch.float64),
        make(),
        generator=g,
    )
    data = oracle.sample(3000, g)
    assert two_sample(x, data) > 1e-3 > two_sample(x + 0.1, data)


def test_with_all_steps_and_the_exact_model_the_data_come_back():
    """DDIM with many steps ends at N(0.3, 0.25), but for the discretisation; DDPM's own
    variance makes it a little narrower."""
    schedule = SCHEDULES["linear"]
    oracle = GaussianMixtureOracle(schedule, [1.0], [[M]], [VAR])
    for sampler, tolerance in (
        (DDIM(200), 0.01),
        (DDIM(200, 1.0), 0.02),
        (DDPM(), 0.02),
    ):
        mean, var = composed(
            affine(sampler, schedule, oracle, EPS, t, s)
            for t, s in sampler.pairs(schedule)
        )
        assert mean == pytest.approx(M, abs=tolerance) and var == pytest.approx(
            VAR, rel=0.1
        )


@given(schedules(), seeds)
def test_ddim_with_eta_1_is_ddpm_with_the_posterior_variance(schedule, seed):
    x, noise = images(seed, 2, 3), images(seed + 1, 2, 3)
    for t in range(1, schedule.T + 1):
        for s in {0, t // 2, t - 1}:
            pred = EPS.decode(schedule, images(seed + t, 2, 3), x, t)
            a = DDIM(eta=1.0).step(schedule, x, pred, t, s, noise)
            b = DDPM(variance="posterior").step(schedule, x, pred, t, s, noise)
            assert (a - b).abs().max() <= 1e-11 * (
                1 + pred.x0.abs().max() + pred.eps.abs().max()
            )


@given(schedules(), seeds, st.floats(0, 1))
def test_ddim_keeps_the_marginal_for_every_eta(schedule, seed, eta):
    """Given x_0, with ε̂ = ε: mean √ᾱ_s x_0 and variance 1 − ᾱ_s, whatever the variance
    of the step."""
    x0, zero = images(seed, 1, 1), torch.zeros(1, 1, dtype=torch.float64)
    for t in range(1, schedule.T + 1):
        s = t // 2

        def to(eps, noise, x=x0):
            xt = (
                schedule.alpha_bar[t].sqrt() * x
                + (1 - schedule.alpha_bar[t]).sqrt() * eps
            )
            return DDIM(eta=eta).step(
                schedule, xt, Prediction(x, zero + eps), t, s, zero + noise
            )

        mean = to(0, 0)
        torch.testing.assert_close(
            mean, schedule.alpha_bar[s].sqrt() * x0, rtol=1e-12, atol=1e-12
        )
        var = to(1, 0, zero) ** 2 + to(0, 1, zero) ** 2
        torch.testing.assert_close(
            var, (1 - schedule.alpha_bar[s]).reshape(1, 1), rtol=1e-11, atol=1e-14
        )


@pytest.mark.parametrize(
    "sampler", [DDPM(5, "posterior"), DDPM(5, "beta"), DDIM(5), DDIM(5, 1.0)], ids=str
)
def test_the_last_step_adds_no_noise(sampler):
    schedule, x = linear_schedule(), images(0, 2, 3)
    t, s = sampler.pairs(schedule)[-1]
    pred = EPS.decode(schedule, images(1, 2, 3), x, t)
    assert s == 0
    for noise in (torch.zeros_like(x), images(2, 2, 3)):
        torch.testing.assert_close(
            sampler.step(schedule, x, pred, t, s, noise),
            pred.x0,
            rtol=1e-12,
            atol=1e-12,
        )


# The walk itself


def net(x, t, y=None):
    return (
        torch.tanh(x) * 0.3
        + 0.01 * (t[:, None] / 1000).to(x)
        + (0 if y is None else y[:, None].to(x))
    )


@pytest.mark.parametrize(
    "sampler",
    [DDPM(steps=6), DDPM(6, "beta"), DDIM(6), DDIM(6, 0.7, "quadratic")],
    ids=str,
)
def test_sample_is_the_last_of_the_steps_and_each_step_is_the_samplers(sampler):
    schedule, xT = linear_schedule(), images(0, 3, 2)
    steps = list(
        sample_steps(
            Denoiser(net, schedule),
            xT,
            sampler,
            generator=torch.Generator().manual_seed(1),
        )
    )
    assert all(isinstance(step, Step) for step in steps) and [
        (step.t, step.s) for step in steps
    ] == sampler.pairs(schedule)
    assert torch.equal(
        steps[-1].x,
        sample(
            Denoiser(net, schedule),
            xT,
            sampler,
            generator=torch.Generator().manual_seed(1),
        ),
    )
    x = xT
    for step in steps:
        pred = EPS.decode(schedule, net(x, torch.full((3,), step.t)), x, step.t)
        torch.testing.assert_close(step.x0, pred.x0, rtol=1e-12, atol=1e-12)
        base, one = (
            sampler.step(schedule, x, pred, step.t, step.s, torch.full_like(x, c))
            for c in (0.0, 1.0)
        )
        noise = (
            (step.x - base) / (one - base)
            if (one != base).all()
            else torch.zeros_like(x)
        )
        assert noise.abs().max() < 6, "the step's noise is standard normal"
        x = step.x


def test_a_step_is_yielded_after_it_was_made_and_gradients_stay_as_they_were():
    schedule, seen = linear_schedule(10, 1e-3, 0.3), []

    def counting(x, t):
        seen.append(int(t[0]))
        assert not torch.is_grad_enabled()
        return x * 0.1

    for n, step in enumerate(
        sample_steps(Denoiser(counting, schedule), images(0, 1, 2), DDIM(5)), start=1
    ):
        assert len(seen) == n and seen[-1] == step.t and torch.is_grad_enabled()
        assert not step.x.requires_grad


def test_one_generator_for_each_image_makes_it_independent_of_the_batch():
    def generators(*numbers):
        return [torch.Generator().manual_seed(n) for n in numbers]

    schedule, xT = linear_schedule(), images(0, 4, 2)
    together = sample(
        Denoiser(net, schedule), xT, DDPM(steps=8), generator=generators(3, 4, 5, 6)
    )
    torch.testing.assert_close(
        sample(
            Denoiser(net, schedule), xT[1:3], DDPM(steps=8), generator=generators(4, 5)
        ),
        together[1:3],
        rtol=1e-12,
        atol=1e-12,
    )


def test_clipping_bounds_the_prediction_and_the_result():
    schedule, xT = cosine_schedule(), 3 * images(0, 3, 2)
    for sampler in (DDPM(steps=9), DDIM(9), DDIM(9, 1.0)):
        steps = list(
            sample_steps(
                Denoiser(net, schedule, clip=(-1, 1)),
                xT,
                sampler,
                generator=torch.Generator().manual_seed(0),
            )
        )
        assert (
            all(step.x0.abs().max() <= 1 for step in steps)
            and steps[-1].x.abs().max() <= 1 + 1e-12
        )


def test_labels_reach_the_model():
    schedule, xT = linear_schedule(), images(0, 2, 2)
    with_label = sample(Denoiser(net, schedule), xT, DDIM(3), y=torch.tensor([1, 2]))

    def labelled(x, t):
        return net(x, t, torch.tensor([1, 2]))

    torch.testing.assert_close(
        with_label, sample(Denoiser(labelled, schedule), xT, DDIM(3))
    )


def test_half_precision_and_float32_walks_are_finite():
    schedule = linear_schedule()
    for dtype in (torch.bfloat16, torch.float32):

        def model(x, t):
            return net(x.to(dtype), t)

        for sampler in (DDPM(), DDIM(20), DDIM(1000, 1.0)):
            x = sample(
                Denoiser(model, schedule, clip=(-1, 1)),
                images(0, 2, 2, dtype=dtype),
                sampler,
                generator=torch.Generator().manual_seed(0),
            )
            assert x.dtype == torch.float32 and torch.isfinite(x).all()


# Encoding


def test_encoding_and_decoding_gaussian_data_come_back():
    schedule = linear_schedule()
    oracle = GaussianMixtureOracle(schedule, [1.0], [[M]], [VAR])
    x0 = M + math.sqrt(VAR) * images(0, 8, 1)
    errors = [
        (
            sample(
                Denoiser(oracle, schedule),
                ddim_encode(Denoiser(oracle, schedule), x0, DDIM(steps)),
                DDIM(steps),
            )
            - x0
        )
        .abs()
        .max()
        .item()
        for steps in (20, 40, 80)
    ]
    assert errors[-1] < 0.1 and all(b < 0.7 * a for a, b in zip(errors, errors[1:])), (
        errors
    )


@pytest.mark.parametrize(
    "schedule", [linear_schedule(), cosine_schedule()], ids=["linear", "cosine"]
)
def test_more_steps_bring_the_image_back_more_exactly(schedule):
    oracle = GaussianMixtureOracle(schedule, **HILLS)
    x0 = oracle.sample(64, torch.Generator().manual_seed(0))
    errors = [
        (
            sample(
                Denoiser(oracle, schedule, clip=(-9, 9)),
                ddim_encode(Denoiser(oracle, schedule), x0, DDIM(steps)),
                DDIM(steps),
            )
            - x0
        )
        .square()
        .mean()
        .item()
        for steps in (10, 20, 50, 100, 200)
    ]
    assert all(b < a for a, b in zip(errors, errors[1:])) and errors[-1] < 1e-3, errors


@given(
    schedules(max_T=30, ends_at_zero=True),
    seeds,
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.data(),
)
def test_no_nan_for_any_schedule(schedule, seed, dtype, data):
    param = data.draw(
        st.sampled_from([X0, V] if schedule.snr[-1] < 1e-6 else [EPS, X0, V])
    )
    steps, spacing = (
        data.draw(st.integers(1, schedule.T)),
        data.draw(st.sampled_from(SPACINGS)),
    )
    sampler = data.draw(
        st.sampled_from(
            [
                DDPM(steps, "posterior", spacing),
                DDPM(steps, "beta", spacing),
                DDIM(steps, 0.0, spacing),
                DDIM(steps, 1.0, spacing),
            ]
        )
    )

    def model(x, t):
        return net(x.to(dtype), t)

    x = sample(
        Denoiser(model, schedule, param, clip=(-1, 1)),
        images(seed, 2, 3, dtype=torch.float32),
        sampler,
        generator=torch.Generator().manual_seed(0),
    )
    assert x.dtype == torch.float32 and torch.isfinite(x).all()


def test_encoding_never_asks_at_t_0():
    schedule, asked = linear_schedule(), []

    def model(x, t):
        asked.append(int(t[0]))
        return x * 0.1

    xT = ddim_encode(Denoiser(model, schedule), images(0, 2, 2), DDIM(10))
    assert asked == list(range(100, 1001, 100)) and torch.isfinite(xT).all()
    asked.clear()
    ddim_encode(Denoiser(model, schedule), images(0, 2, 2))
    assert asked == list(range(20, 1001, 20))  # 50 steps, where nothing is said


# Mistakes


@pytest.mark.parametrize(
    "call, names",
    [
        (lambda: DDPM(variance="large"), ["variance", "large", "beta"]),
        (lambda: DDPM(steps=0), ["steps", "0", "1"]),
        (lambda: DDIM(steps=-3), ["steps", "-3"]),
        (lambda: DDIM(eta=1.5), ["eta", "1.5", "1"]),
        (lambda: DDIM(eta=-0.1), ["eta", "-0.1"]),
        (lambda: DDIM(spacing="uniform"), ["spacing", "uniform", "trailing"]),
        (lambda: DDIM(50).pairs(linear_schedule(20, 1e-3, 0.3)), ["steps", "50", "20"]),
        (lambda: DDIM(timesteps=(5, 5, 1)), ["timesteps", "5, 5, 1", "decreasing"]),
        (
            lambda: DDIM(timesteps=(2000, 1)).pairs(linear_schedule()),
            ["timesteps", "1000", "2000"],
        ),
        (
            lambda: DDIM(timesteps=(10, 0)).pairs(linear_schedule()),
            ["timesteps", "1000", "0"],
        ),
        (
            lambda: sample(
                Denoiser(net, zero_terminal_snr(linear_schedule())),
                images(0, 2, 2),
                DDIM(5),
            ),
            ["SNR", "0"],
        ),
        (
            lambda: sample(
                Denoiser(lambda x, t: x[:, :1], linear_schedule()),
                images(0, 2, 2),
                DDIM(5),
            ),
            ["(2, 2)", "(2, 1)"],
        ),
    ],
)
def test_mistakes_are_refused(call, names):
    with pytest.raises(ValueError) as refusal:
        call()
    assert all(name in str(refusal.value) for name in names), str(refusal.value)


def test_epsilon_prediction_without_signal_and_clipping_warns():
    with pytest.warns(UserWarning, match="clip"):
        sample(Denoiser(net, cosine_schedule()), images(0, 2, 2), DDIM(5))


@pytest.mark.parametrize("param", [X0, V], ids=lambda p: p.name)
def test_zero_terminal_snr_is_fine_for_x0_and_v(param):
    schedule = zero_terminal_snr(linear_schedule(100, 1e-3, 0.2))
    oracle = GaussianMixtureOracle(schedule, [1.0], [[M]], [VAR], param)
    x = sample(Denoiser(oracle, schedule, param), images(0, 4, 1), DDIM(20))
    assert torch.isfinite(x).all() and isinstance(schedule, NoiseSchedule)


@pytest.mark.parametrize("sampler", [DDPM(), DDIM(eta=1.0)])
def test_a_stochastic_step_without_noise_is_refused(sampler):
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="noise must be a tensor .*, got None"):
        sampler.step(linear_schedule(), x, Prediction(x, x), 500, 400, None)


def test_half_precision_is_widened_once_and_at_the_start():
    "Of bfloat16 a walk, or the way back, makes what it makes of the same float32."
    start, schedule = images(3, 2, 3).bfloat16(), linear_schedule()
    denoiser = Denoiser(lambda x, t: 0.3 * torch.sin(3 * x), schedule)
    for walk in (
        lambda x: sample(denoiser, x, DDIM(4)),
        lambda x: ddim_encode(denoiser, x, DDIM(4)),
    ):
        assert torch.equal(walk(start), walk(start.float()))
        assert walk(start).dtype == torch.float32
    seen = []
    model = lambda x, t: seen.append(x.dtype) or torch.zeros_like(x)
    sample(Denoiser(model, schedule), start, DDPM(3))
    ddim_encode(Denoiser(model, schedule), start, DDIM(3))
    assert set(seen) == {torch.float32}


def test_noise_is_drawn_in_the_type_of_the_walk():
    denoiser = Denoiser(lambda x, t: 0 * x, NoiseSchedule([1.0, 0.5, 0.1]), X0)
    xT = torch.zeros(1, 3, dtype=torch.float64)
    first, _ = sample_steps(denoiser, xT, DDPM(), generator=torch.manual_seed(0))
    z = torch.randn(1, 3, dtype=torch.float64, generator=torch.manual_seed(0))
    var = 0.5 * (1 - 0.1 / 0.5) / (1 - 0.1)
    torch.testing.assert_close(first.x, math.sqrt(var) * z, rtol=1e-12, atol=0)


def test_a_walk_that_clips_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in (dict(clip=(-1, 1)), dict(param=V), dict(param=X0)):
            denoiser = Denoiser(lambda x, t: 0 * x, cosine_schedule(), **options)
            sample(denoiser, images(0, 1, 3), DDIM(2))


@pytest.mark.parametrize("make", [DDPM, DDIM])
def test_each_argument_about_times_reaches_the_walk(make):
    schedule = linear_schedule()
    for options in (
        dict(steps=np.int64(7), spacing="quadratic", quad_end=0.8),
        dict(steps=7, spacing="quadratic"),
        dict(steps=7, spacing="linspace"),
        dict(timesteps=[np.int64(900), 40, 3]),
    ):
        want = time_pairs(1000, **options)
        assert make(**options).pairs(schedule) == want
        steps = sample_steps(Denoiser(net, schedule), images(0, 1, 3), make(**options))
        assert [(step.t, step.s) for step in steps] == want
    asked = []
    model = lambda x, t: asked.append(int(t[0])) or 0 * x
    sampler = DDIM(7, spacing="quadratic", quad_end=0.8)
    ddim_encode(Denoiser(model, schedule), images(0, 1, 3), sampler)
    assert asked[::-1] == [t for t, _ in sampler.pairs(schedule)]


def test_published_quadratic_times_are_rounded_down():
    "1 + ⌊T i²/(S−1)²⌋, where rounding to the nearest would give others."
    for S in (10, 20, 50):
        up = [1 + 1000 * i * i // (S - 1) ** 2 for i in range(S)]
        if len(set(up)) == S:
            times = [t for t, _ in time_pairs(1000, S, "quadratic", quad_end=1.0)]
            assert times[1:] == up[-2::-1] and times[0] == 1000


def test_labels_reach_the_way_back():
    def told(x, t, y=None):
        return 0 * x if y is None else 0 * x + y[:, None]

    denoiser, x0 = Denoiser(told, linear_schedule()), images(0, 2, 3)
    up = ddim_encode(denoiser, x0, DDIM(4), y=torch.tensor([0.5, -0.5]))
    abar = linear_schedule().alpha_bar[-1]  # ε̂ is constant: one stride or four
    eps = (1 - abar).sqrt() * torch.tensor([[0.5], [-0.5]])
    torch.testing.assert_close(up, abar.sqrt() * x0 + eps, rtol=1e-6, atol=1e-6)


def test_the_defaults_of_the_samplers_are_those_of_their_pages():
    assert DDPM() == DDPM(None, "posterior", "trailing", None, 1.0)
    assert DDIM() == DDIM(50, 0.0, "trailing", None, 1.0)
    assert DDPM().pairs(linear_schedule()) == time_pairs(1000)
    assert DDIM().pairs(linear_schedule()) == time_pairs(1000, 50)
    asked = []
    model = lambda x, t: asked.append(int(t[0])) or 0 * x
    denoiser, x = Denoiser(model, linear_schedule(), V), images(0, 1, 3)
    for walk in (sample, ddim_encode, lambda *given: list(sample_steps(*given))):
        walk(denoiser, x)
    all_steps, fifty = list(range(1000, 0, -1)), list(range(20, 1001, 20))
    assert asked == all_steps + fifty + all_steps


@pytest.mark.parametrize("sampler", [DDPM(3), DDIM(3, 0.5)])
def test_there_is_no_way_back_with_noise(sampler):
    denoiser = Denoiser(net, linear_schedule())
    with pytest.raises(ValueError, match="sampler must draw no noise.*got DD"):
        ddim_encode(denoiser, images(0, 1, 3), sampler)


def test_no_more_noise_is_drawn_than_is_needed():
    "None for the last step, and none at all where η = 0."
    denoiser, x = Denoiser(net, linear_schedule()), images(0, 2, 3)
    for sampler, drawn in ((DDPM(4), 3), (DDIM(4, 0.5), 3), (DDPM(1), 0), (DDIM(4), 0)):
        generator, other = (torch.Generator().manual_seed(1) for _ in range(2))
        sample(denoiser, x, sampler, generator=generator)
        for _ in range(drawn):
            torch.randn(2, 3, generator=other, dtype=torch.float64)
        assert torch.equal(generator.get_state(), other.get_state()), sampler


def test_times_by_their_formulas():
    "Rounded to the nearest but for quadratic, which is rounded down, and pushed apart."
    i, j = range(6, 0, -1), range(5, -1, -1)
    assert time_steps(100, 6) == [round(k * 100 / 6) for k in i]
    assert time_steps(100, 6, "linspace") == [1 + round(k * 99 / 5) for k in j]
    assert time_steps(100, 6, "leading") == [1 + k * 16 for k in j]
    down = [100, *(1 + int(100 * k**2 / 25) for k in j[1:])]
    assert time_steps(100, 6, "quadratic") == down
    down = [1 + int(80 * k**2 / 25) for k in j]
    assert time_steps(100, 6, "quadratic", quad_end=0.8) == down
    assert time_steps(100, 20, "quadratic", quad_end=0.2)[-6:] == [6, 5, 4, 3, 2, 1]
    assert time_steps(5, 4, "quadratic") == [5, 3, 2, 1]
    for spacing in SPACINGS:
        assert time_steps(7, 1, spacing) == [7] and time_steps(1, None, spacing) == [1]
        assert time_steps(2, 2, spacing) == [2, 1]
    assert time_steps(9, timesteps=(9, 1)) == [9, 1]
    assert time_steps(9, timesteps=[4]) == [4]


@pytest.mark.parametrize(
    "options, names",
    [
        (dict(steps=2.0), ["steps must be an integer >= 1", "2.0"]),
        (dict(steps=0), ["steps must be an integer >= 1", "0"]),
        (dict(steps=11), ["steps must be at most T = 10", "11"]),
        (dict(quad_end=0), ["quad_end must lie in (0, 1]", "0"]),
        (dict(quad_end=1.01), ["quad_end must lie in (0, 1]", "1.01"]),
        (dict(timesteps=()), ["timesteps must be one or more integers", "()"]),
        (dict(timesteps=(3, 1.0)), ["timesteps must be one or more integers", "1.0"]),
        (dict(timesteps=(3, 3)), ["timesteps must be strictly decreasing", "[3, 3]"]),
        (dict(timesteps=(11, 1)), ["timesteps must lie in 1..10", "11"]),
        (dict(timesteps=(1, 0)), ["timesteps must lie in 1..10", "0"]),
        (dict(timesteps=(5, 3, 0)), ["timesteps must lie in 1..10", "0"]),
        (dict(spacing="even"), ["spacing must be one of trailing, leading", "even"]),
    ],
)
def test_times_that_are_none_are_refused(options, names):
    for make in (time_steps, time_pairs):
        with pytest.raises(ValueError) as refusal:
            make(10, **options)
        assert all(name in str(refusal.value) for name in names), str(refusal.value)
    if "11" not in names and 0 not in options.get("timesteps", ()):  # whatever T is
        for make in (DDPM, DDIM):
            with pytest.raises(ValueError):
                make(**options)


def test_the_warning_says_how_much_and_points_at_the_caller():
    def steps(abar, **options):
        denoiser = Denoiser(net, NoiseSchedule([1.0, 0.5, abar]), **options)
        return sample_steps(denoiser, images(0, 1, 3))

    words = "magnified 10,000 times in x0 at t = 2, where SNR is 1e-08"
    call = compile("steps(denoiser, x)", "the caller", "exec")
    denoiser = Denoiser(net, NoiseSchedule([1.0, 0.5, 1e-8]))
    with pytest.warns(UserWarning, match=words) as warned:
        exec(call, dict(steps=sample_steps, denoiser=denoiser, x=images(0, 1, 3)))
    assert warned[0].filename == "the caller"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(1.1e-6)
        steps(9.999990000009998e-07)  # SNR is 1e-6, to the last bit
        steps(1e-8, param=V)
        steps(0.0, param=X0)
        with pytest.raises(UserWarning):
            steps(0.9e-6)
        with pytest.raises(ValueError, match="param must be X0 or V where SNR is 0"):
            steps(0.0, clip=(-1, 1))


def test_each_step_tells_where_it_stands():
    denoiser, x = Denoiser(net, linear_schedule()), images(0, 2, 3)
    y = torch.tensor([1.0, 2.0])
    first, second = sample_steps(denoiser, x, DDIM(2), y=y)
    pred = denoiser(x, 1000, y)
    assert (first.t, first.s, second.t, second.s) == (1000, 500, 500, 0)
    assert torch.equal(first.x0, pred.x0) and torch.equal(second.x0, second.x)
    want = DDIM(2).step(linear_schedule(), x, pred, 1000, 500)
    assert torch.equal(first.x, want)
    assert torch.equal(second.x, sample(denoiser, x, DDIM(2), y=y))
    held = x.clone().requires_grad_()
    assert not next(sample_steps(denoiser, held, DDIM(2))).x.requires_grad


@pytest.mark.parametrize("at, times", [("upper", [3, 6, 10]), ("lower", [1, 3, 6])])
def test_the_way_back_asks_at_the_end_that_is_named(at, times):
    schedule, x0, asked = linear_schedule(10), images(0, 2, 3), []

    def model(x, t):
        asked.append(int(t[0]))
        return torch.sin(3 * x) + t[:, None] / 10

    sampler, denoiser = DDIM(timesteps=[10, 6, 3]), Denoiser(model, schedule)
    up = ddim_encode(denoiser, x0, sampler, at=at)
    assert asked == times
    x, levels = x0.double(), [0, 3, 6, 10]
    for t, s, told in zip(levels[1:], levels, times):
        abar_t, abar_s = schedule.at(t), schedule.at(s)
        eps = torch.sin(3 * x) + told / 10
        x = abar_t.sqrt() * (x - (1 - abar_s).sqrt() * eps) / abar_s.sqrt()
        x = x + (1 - abar_t).sqrt() * eps
    torch.testing.assert_close(up.double(), x, rtol=1e-5, atol=1e-5)
    if at == "upper":  # as where nothing is said
        assert torch.equal(up, ddim_encode(denoiser, x0, sampler))


def test_the_end_of_a_stride_is_upper_or_lower():
    denoiser = Denoiser(net, linear_schedule())
    with pytest.raises(ValueError, match="at must be 'upper' or 'lower', got 'middle'"):
        ddim_encode(denoiser, images(0, 1, 3), DDIM(2), at="middle")


def test_a_step_is_told_what_was_seen_in_the_step_before():
    told = []

    class Noting(DDIM):
        def step(self, schedule, x, pred, t, s, noise=None, previous=None):
            told.append((t, pred, previous))
            return super().step(schedule, x, pred, t, s, noise)

    sample(Denoiser(net, linear_schedule()), images(0, 2, 3), Noting(4))
    assert [previous for _, _, previous in told] == [
        None,
        *(seen[:2] for seen in told[:3]),
    ]
