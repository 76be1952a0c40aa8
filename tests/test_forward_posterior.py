"""q(x_t | x_s), its composition, and the posterior q(x_s | x_t, x_0), for random
schedules and strides."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import images, schedules, seeds, strides

from ddpm_lit import (
    NoiseSchedule,
    gaussian_kl,
    linear_schedule,
    q_marginal,
    q_posterior,
    q_sample,
)
from ddpm_lit.forward import Stream, draw_noise, keyed_generator, keyed_seed
from ddpm_lit.forward import transition
from ddpm_lit.gaussian import Gaussian, readable


@given(schedules(ends_at_zero=True), seeds, st.data())
def test_q_sample_is_equation_4_for_each_image(schedule, seed, data):
    t = torch.tensor(
        data.draw(st.lists(st.integers(0, schedule.T), min_size=3, max_size=3))
    )
    x0, eps = images(seed, 3, 2, 2), images(seed + 1, 3, 2, 2)
    xt = q_sample(schedule, x0, t, eps)
    for i in range(3):
        abar = schedule.alpha_bar[t[i]].item()
        torch.testing.assert_close(
            xt[i],
            math.sqrt(abar) * x0[i] + math.sqrt(1 - abar) * eps[i],
            rtol=1e-13,
            atol=1e-13,
        )
        torch.testing.assert_close(
            q_sample(schedule, x0[i : i + 1], int(t[i]), eps[i : i + 1])[0],
            xt[i],
            rtol=1e-13,
            atol=1e-13,
        )


@given(schedules(ends_at_zero=True), seeds, st.data())
def test_the_marginal_is_what_q_sample_draws_from(schedule, seed, data):
    "Mean without noise, and its variance for each image, for many times as for one."
    few = st.lists(st.integers(0, schedule.T), min_size=3, max_size=3)
    t, x0 = torch.tensor(data.draw(few)), images(seed, 3, 2, 2)
    law, zero = q_marginal(schedule, x0, t), torch.zeros_like(x0)
    torch.testing.assert_close(law.mean, q_sample(schedule, x0, t, zero))
    assert law.var.shape == (3, 1, 1)
    for i in range(3):
        abar = schedule.alpha_bar[t[i]].item()
        one = q_marginal(schedule, x0[i : i + 1], int(t[i]))
        assert abs(law.var[i].item() - (1 - abar)) < 1e-15
        assert abs(one.var.item() - (1 - abar)) < 1e-15
        exact = math.sqrt(abar) * x0[i]
        torch.testing.assert_close(one.mean[0], exact, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(law.mean[i], exact, rtol=1e-13, atol=1e-13)


def test_the_marginal_draws_what_q_sample_draws():
    x0, eps = images(0, 4, 2), images(1, 4, 2)
    for t in (0, 1, 500, torch.tensor([0, 1, 700, 1000])):
        drawn = q_marginal(linear_schedule(), x0, t).sample(eps)
        wanted = q_sample(linear_schedule(), x0, t, eps)
        torch.testing.assert_close(drawn, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "x0, t, words",
    [
        (torch.zeros(2, 3, dtype=torch.uint8), 1, "x0 must be a floating-point"),
        (torch.zeros(2, 3), torch.tensor([1, 2, 3]), "t must have one time for each"),
        (torch.zeros(2, 3), 1001, "t"),
    ],
)
def test_a_marginal_of_what_has_none_is_refused(x0, t, words):
    with pytest.raises(ValueError, match=words):
        q_marginal(linear_schedule(), x0, t)


@given(strides())
def test_a_stride_composes(case):
    """From 0 to s and on to t is the same as from 0 to t: means multiply, variances add
    up."""
    schedule, s, t = case
    alpha, beta = transition(schedule, s, t)
    abar_s, abar_t = schedule.alpha_bar[s], schedule.alpha_bar[t]
    torch.testing.assert_close(alpha * abar_s, abar_t, rtol=1e-13, atol=0)
    torch.testing.assert_close(
        alpha * (1 - abar_s) + beta, 1 - abar_t, rtol=1e-12, atol=1e-15
    )
    one_by_one = schedule.alpha[s + 1 : t + 1].prod()
    torch.testing.assert_close(alpha, one_by_one, rtol=1e-11, atol=0)
    torch.testing.assert_close(
        alpha + beta, torch.ones((), dtype=torch.float64), rtol=1e-13, atol=0
    )


@given(strides(), seeds)
def test_posterior_is_bayes(case, seed):
    "log q(x_s|x_t,x_0) − log q(x_t|x_s) − log q(x_s|x_0) does not depend on x_s."
    schedule, s, t = case
    if s == 0:
        return
    alpha, beta = transition(schedule, s, t)
    abar_s = schedule.alpha_bar[s]
    x0, xt, xs = images(seed, 1, 4), images(seed + 1, 1, 4), images(seed + 2, 7, 4)
    post = q_posterior(schedule, x0, xt, t, s)
    left = post.log_prob(xs)
    right = Gaussian(alpha.sqrt() * xs, beta).log_prob(xt) + Gaussian(
        abar_s.sqrt() * x0, 1 - abar_s
    ).log_prob(xs)
    gap = left - right
    torch.testing.assert_close(
        gap,
        gap[:1].expand_as(gap),
        rtol=0,
        atol=1e-7 * max(1.0, left.abs().max().item()),
    )


@given(strides(), seeds)
def test_posterior_variance_lies_between_0_and_beta(case, seed):
    schedule, s, t = case
    var = q_posterior(schedule, images(seed, 1, 1), images(seed, 1, 1), t, s).var
    beta = transition(schedule, s, t)[1]
    assert (var >= 0).all() and (var <= beta * (1 + 1e-12)).all()
    assert (var > 0).all() or s == 0
    wanted = (1 - schedule.alpha_bar[s]) / (1 - schedule.alpha_bar[t]) * beta
    torch.testing.assert_close(var, wanted.expand_as(var), rtol=1e-12, atol=0)


@given(schedules(ends_at_zero=True), seeds, st.data())
def test_posterior_at_0_is_the_clean_image(schedule, seed, data):
    t = data.draw(st.integers(1, schedule.T))
    x0, xt = images(seed, 2, 3), images(seed + 1, 2, 3)
    post = q_posterior(schedule, x0, xt, t, 0)
    torch.testing.assert_close(post.mean, x0, rtol=1e-13, atol=1e-13)
    assert (post.var == 0).all()


@given(schedules(), seeds)
def test_default_s_and_one_time_for_each_image(schedule, seed):
    x0, xt = images(seed, 4, 2), images(seed + 1, 4, 2)
    t = torch.randint(
        1, schedule.T + 1, (4,), generator=torch.Generator().manual_seed(seed)
    )
    post = q_posterior(schedule, x0, xt, t)
    for i in range(4):
        one = q_posterior(
            schedule, x0[i : i + 1], xt[i : i + 1], int(t[i]), int(t[i]) - 1
        )
        torch.testing.assert_close(
            post.mean[i : i + 1], one.mean, rtol=1e-13, atol=1e-13
        )
        torch.testing.assert_close(
            post.var[i].reshape(-1)[:1], one.var.reshape(-1)[:1], rtol=1e-13, atol=0
        )


@given(strides(), seeds)
def test_posterior_keeps_the_marginal(case, seed):
    """Averaged over x_t given x_0, the posterior is q(x_s | x_0): law of total
    expectation and variance."""
    schedule, s, t = case
    abar_s, abar_t = schedule.alpha_bar[s], schedule.alpha_bar[t]
    x0 = images(seed, 1, 1)
    at_mean, zero = (
        q_posterior(schedule, x0, abar_t.sqrt() * x0, t, s),
        torch.zeros(1, 1, dtype=torch.float64),
    )
    slope = q_posterior(schedule, zero, zero + 1, t, s).mean
    torch.testing.assert_close(at_mean.mean, abar_s.sqrt() * x0, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(
        (at_mean.var + slope**2 * (1 - abar_t)).reshape(()),
        1 - abar_s,
        rtol=1e-11,
        atol=1e-14,
    )


@pytest.mark.parametrize(
    "dtype, wider",
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_widened(dtype, wider):
    schedule = linear_schedule()
    x0, eps = images(0, 3, 2, dtype=dtype), images(1, 3, 2, dtype=dtype)
    t = torch.tensor([1, 500, 1000])
    xt = q_sample(schedule, x0, t, eps)
    post = q_posterior(schedule, x0, xt.to(dtype), t)
    assert xt.dtype == post.mean.dtype == wider
    assert torch.isfinite(xt).all() and torch.isfinite(post.mean).all()
    exact = q_sample(schedule, x0.double(), t, eps.double())
    torch.testing.assert_close(xt.double(), exact, rtol=1e-6, atol=1e-6)
    for t in (1, 1000):  # a Python int must not change the type either
        assert (
            q_sample(schedule, x0, t, eps).dtype
            == q_posterior(schedule, x0, xt, t).mean.dtype
            == wider
        )


@given(seeds, st.floats(0.01, 9), st.floats(0.01, 9))
def test_gaussian_against_torch(seed, v, w):
    from torch.distributions import Normal, kl_divergence

    m, n, x = images(seed, 5), images(seed + 1, 5), images(seed + 2, 5)
    p, q = Gaussian(m, torch.tensor(v).double()), Gaussian(n, torch.tensor(w).double())
    P, Q = Normal(m, p.var.sqrt()), Normal(n, q.var.sqrt())
    torch.testing.assert_close(p.log_prob(x), P.log_prob(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        gaussian_kl(p, q), kl_divergence(P, Q), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(p.sample(x), m + math.sqrt(v) * x, rtol=1e-6, atol=1e-6)


def test_noise_for_each_image_does_not_depend_on_the_batch():
    def generators(*seeds_):
        return [torch.Generator().manual_seed(s) for s in seeds_]

    together = draw_noise((3, 2, 2), generators(5, 6, 7))
    assert torch.equal(together[1:2], draw_noise((1, 2, 2), generators(6)))
    assert not torch.equal(together[0], together[1])
    assert draw_noise((0, 2, 2), []).shape == (0, 2, 2)


S = linear_schedule(10, 1e-3, 0.2)
X = torch.zeros(2, 1, 2, 2)
ONE = torch.tensor(1.0)


@pytest.mark.parametrize(
    "call, names",
    [
        (lambda: q_sample(S, X, torch.tensor([1, 11]), X), ["t", "10", "11"]),
        (lambda: q_sample(S, X, torch.tensor([1, 2, 3]), X), ["t", "2", "3"]),
        (
            lambda: q_sample(S, X, torch.tensor([1, 2]), X[:, :, :1]),
            ["eps", "(2, 1, 2, 2)", "(2, 1, 1, 2)"],
        ),
        (lambda: q_sample(S, X, torch.tensor([1.0, 2.0]), X), ["t", "int64"]),
        (lambda: q_posterior(S, X[:1], X, 3), ["x0", "(2, 1, 2, 2)", "(1, 1, 2, 2)"]),
        (lambda: q_posterior(S, X, X, 3, 3), ["s", "t", "3"]),
        (lambda: q_posterior(S, X, X, 3, 5), ["s", "t", "5"]),
        (lambda: transition(S, torch.tensor([1, 4]), torch.tensor([3, 4])), ["s = 4"]),
        (lambda: transition(S, torch.tensor([-1, 0]), 4), ["s = -1", "t = 4"]),
        (lambda: transition(S, torch.tensor([0, 4]), torch.tensor([1, 4])), ["s = 4"]),
        (lambda: transition(S, 0, 0), ["t must lie in 1..10", "0"]),
        (
            lambda: transition(S, torch.tensor([1]), torch.tensor([3, 4])),
            ["s must have the shape of t, (2,)", "(1,)"],
        ),
        (
            lambda: q_posterior(S, X, X, torch.tensor([3, 4, 5])),
            ["t and s", "one time for each of the 2 images", "3"],
        ),
        (lambda: q_sample(S, X.long(), 3, X.long()), ["x0", "floating", "int64"]),
        (lambda: Gaussian(X, ONE).sample(X[:1]), ["noise", "(2, 1, 2, 2)"]),
        (lambda: draw_noise((2, 1), 7), ["generator", "sequence", "int"]),
        (lambda: q_posterior(S, X, X, 0), ["t", "0"]),
        (lambda: q_posterior(S, X, X, 11), ["t", "11"]),
        (lambda: draw_noise((2, 1), [torch.Generator()]), ["generator", "2", "1"]),
    ],
)
def test_mistakes_are_refused(call, names):
    with pytest.raises(ValueError) as refusal:
        call()
    assert all(name in str(refusal.value) for name in names), str(refusal.value)


def test_alpha_bar_zero_at_the_end_gives_pure_noise():
    schedule = NoiseSchedule([1.0, 0.5, 0.0])
    x0, eps = images(0, 2, 3), images(1, 2, 3)
    assert torch.equal(q_sample(schedule, x0, 2, eps), eps)
    post = q_posterior(schedule, x0, eps, 2)
    torch.testing.assert_close(post.mean, math.sqrt(0.5) * x0)


def test_half_precision_keeps_its_own_digits():
    "Coefficients of one time for all are numbers, and must not pull it down to 8 bits."
    x0, xt = images(0, 3, 2).bfloat16(), images(1, 3, 2).bfloat16()
    for t in (5, torch.tensor([1, 500, 1000])):
        got = q_posterior(linear_schedule(), x0, xt, t).mean
        exact = q_posterior(linear_schedule(), x0.double(), xt.double(), t).mean
        torch.testing.assert_close(got.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("number", [0, 1, 2], ids=["torch's own", "one", "many"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_noise_has_the_type_and_the_device_asked_for(number, dtype):
    def generator():
        seeded = [torch.Generator().manual_seed(seed) for seed in range(number)]
        return seeded if number == 2 else seeded[0] if number else None

    torch.manual_seed(0)
    noise = draw_noise((2, 3), generator(), "cpu", dtype)
    assert noise.dtype == dtype and noise.device.type == "cpu"
    torch.manual_seed(0)  # drawn in that type: not rounded to it, nor widened
    first = torch.Generator().manual_seed(0) if number else None
    want = torch.randn(3 if number == 2 else (2, 3), generator=first, dtype=dtype)
    assert torch.equal(noise[0] if number == 2 else noise, want)
    assert draw_noise((2, 3), generator(), "meta", dtype).device.type == "meta"
    assert draw_noise((2, 3), generator()).dtype == torch.float32


def test_numpys_integers_are_times():
    x0, eps = images(0, 2, 3), images(1, 2, 3)
    t, s = np.int64(7), np.int32(3)
    assert torch.equal(q_sample(S, x0, t, eps), q_sample(S, x0, 7, eps))
    assert transition(S, s, t) == transition(S, 3, 7)
    got, want = q_posterior(S, x0, eps, t), q_posterior(S, x0, eps, 7)
    assert torch.equal(got.mean, want.mean)
    with pytest.raises(ValueError, match="got bool"):
        q_sample(S, x0, True, eps)


EIGHT, COLUMN = torch.zeros(8), torch.zeros(8, 1)


@pytest.mark.parametrize(
    "call, names",
    [
        (lambda: Gaussian(EIGHT, torch.tensor(-0.5)), ["var", "at least 0", "-0.5"]),
        (lambda: Gaussian(EIGHT, torch.tensor(torch.nan)), ["var", "0", "nan"]),
        (lambda: Gaussian(COLUMN, -COLUMN - 1), ["var", "at least 0", "-1"]),
        (lambda: Gaussian(COLUMN, EIGHT), ["var", "(8, 1)", "(8,)"]),
        (lambda: Gaussian(EIGHT, ONE).log_prob(COLUMN), ["x", "(8,)", "(8, 1)"]),
        (lambda: Gaussian(COLUMN, ONE).log_prob(EIGHT), ["x", "(8,)", "(8, 1)"]),
        (lambda: Gaussian(COLUMN, ONE).log_prob(COLUMN.T), ["x", "(8, 1)", "(1, 8)"]),
        (
            lambda: gaussian_kl(Gaussian(EIGHT, ONE), Gaussian(COLUMN, ONE)),
            ["p and q", "(8,)", "(8, 1)"],
        ),
    ],
)
def test_shapes_that_would_broadcast_and_negative_variances_are_refused(call, names):
    with pytest.raises(ValueError) as refusal:
        call()
    message = str(refusal.value)
    assert "\n" not in message and all(name in message for name in names), message


def test_shapes_that_belong_together_are_taken():
    assert Gaussian(torch.zeros(7, 1), ONE).log_prob(torch.zeros(7, 4)).shape == (7, 4)
    assert Gaussian(torch.zeros(7, 4), ONE).log_prob(torch.zeros(1, 4)).shape == (7, 4)
    assert Gaussian(torch.zeros(7, 4), ONE).log_prob(ONE).shape == (7, 4)
    assert Gaussian(ONE, ONE).log_prob(EIGHT).shape == (8,)


def test_a_stride_may_begin_at_clean_data_for_some_of_the_images():
    alpha, beta = transition(S, torch.tensor([0, 1]), torch.tensor([1, 3]))
    want = [transition(S, s, t) for s, t in ((0, 1), (1, 3))]
    assert torch.equal(alpha, torch.stack([a for a, _ in want]))
    assert torch.equal(beta, torch.stack([b for _, b in want]))


class Elsewhere(torch.Generator):
    "A generator of another device, where there are no values to bring back."

    device = torch.device("meta")


def test_noise_comes_from_its_generator_alone_and_is_drawn_where_that_is():
    seeded = lambda: torch.Generator().manual_seed(5)
    draws = {1: [], 2: []}
    for seed in (0, 1):
        for number, drawn in draws.items():
            torch.manual_seed(seed)
            generator = [seeded()] * 2 if number == 2 else seeded()
            drawn.append(draw_noise((2, 3), generator))
    assert torch.equal(*draws[1]) and torch.equal(*draws[2])
    for generator in (Elsewhere(), [Elsewhere(), Elsewhere()]):
        assert draw_noise((2, 3), generator, "meta").device.type == "meta"
        with pytest.raises(NotImplementedError):
            draw_noise((2, 3), generator, "cpu")


def test_keys_and_streams_are_never_renumbered():
    "Images that were drawn with them must come again: 63 bits of numpy's SeedSequence."
    names = "EPOCH STEP DROPOUT DRAW FEATURES BOUND LABELS BASELINE"
    assert {s.name: int(s) for s in Stream} == dict(zip(names.split(), range(8)))
    assert keyed_seed(0) == 7896617691693857887
    assert keyed_seed(0, 1) == 2918264622725855778
    assert keyed_seed(7, Stream.DRAW, 12) == 3461307021533076983
    generator = keyed_generator(7, 3, 12)
    assert generator.initial_seed() == keyed_seed(7, 3, 12)
    assert generator.device.type == "cpu"


def test_values_elsewhere_are_not_read():
    assert readable(ONE) and not readable(ONE.to("meta"))
    negative = torch.full((8,), -1.0, device="meta")  # nobody can know
    assert Gaussian(negative, negative).var.device.type == "meta"
    times = torch.tensor([0, 0], device="meta")
    assert all(made.is_meta for made in transition(S, times, times))


def test_the_divergence_keeps_its_digits_where_no_series_helps():
    mpmath = pytest.importorskip("mpmath")
    ratios = torch.linspace(0.501, 1.6, 120, dtype=torch.float64)
    kl = gaussian_kl(
        Gaussian(0 * ratios, 0.3 * ratios), Gaussian(0 * ratios, 0.3 * ONE)
    )
    w = mpmath.mpf((0.3 * ONE).item())
    with mpmath.workdps(40):
        exact = [mpmath.mpf(v.item()) / w for v in 0.3 * ratios]
        exact = [float((r - 1 - mpmath.log(r)) / 2) for r in exact]
    assert kl.tolist() == pytest.approx(exact, rel=6e-15, abs=0)
