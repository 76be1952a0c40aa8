"""Editing: mixtures of noises, parts of walks, image-to-image, common beginnings and
inpainting, against closed forms on Gaussian data."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import images, seeds

from ddpm_lit import DDIM, DDPM, X0, Denoiser, DPMSolver, GaussianMixtureOracle
from ddpm_lit import DynamicThreshold, transition
from ddpm_lit import cosine_schedule, ddim_encode
from ddpm_lit import draw_noise, linear_schedule, q_sample, sample, sample_steps
from ddpm_lit.editing import InpaintingSampler, SubWalk, between, grid_between
from ddpm_lit.editing import image_to_image, inpaint, inpaint_steps, interpolate
from ddpm_lit.editing import interpolate_at, lerp, noise_up, sample_with_shared_start
from ddpm_lit.editing import slerp, stack_steps, trajectory, variance_preserving_mix

LINEAR = linear_schedule()


def generator(seed):
    return torch.Generator().manual_seed(seed)


def generators(*numbers):
    return [generator(n) for n in numbers]


def number(value, n=1):
    return torch.full((n, 1), value, dtype=torch.float64)


def always(x, t, y=None):
    return torch.full_like(x, 0.7)


def net(x, t, y=None):
    return (
        torch.tanh(x) * 0.3
        + 0.01 * (t[:, None] / 1000).to(x)
        + (0 if y is None else y[:, None].to(x))
    )


# Mixtures of noises


@given(seeds, st.floats(0, 1))
def test_slerp_is_the_formula_and_walks_on_the_arc(seed, w):
    a, b = images(seed, 3, 2, 4), images(seed + 1, 3, 2, 4)
    got = slerp(a, b, w)
    for x, y, z in zip(a.numpy(), b.numpy(), got.numpy()):
        angle = math.acos((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))
        np.testing.assert_allclose(
            z,
            (math.sin((1 - w) * angle) * x + math.sin(w * angle) * y) / math.sin(angle),
            rtol=1e-9,
            atol=1e-12,
        )
    unit = (
        a / a.flatten(1).norm(dim=1)[:, None, None],
        b / b.flatten(1).norm(dim=1)[:, None, None],
    )
    torch.testing.assert_close(
        slerp(*unit, w).flatten(1).norm(dim=1),
        torch.ones(3, dtype=torch.float64),
        rtol=1e-12,
        atol=0,
    )


@pytest.mark.parametrize("mixing", [lerp, variance_preserving_mix, slerp])
def test_mixtures_end_at_their_ends_and_take_a_weight_for_each_image(mixing):
    a, b = images(0, 3, 2, 4), images(1, 3, 2, 4)
    for w, end in ((0, a), (1.0, b)):
        torch.testing.assert_close(mixing(a, b, w), end, rtol=1e-12, atol=1e-12)
    weights = torch.tensor([0.1, 0.5, 0.8])
    for i, w in enumerate(weights):
        torch.testing.assert_close(
            mixing(a, b, weights)[i : i + 1],
            mixing(a[i : i + 1], b[i : i + 1], w.item()),
            rtol=1e-6,
            atol=1e-6,
        )
    assert mixing(a.half(), b.half(), 0.3).dtype == torch.float32


def test_which_mixtures_keep_the_variance():
    """Independent noises half-way: linear leaves a half. Equal noises: roots double it,
    and slerp returns them."""
    a, b = images(0, 1, 100_000), images(1, 1, 100_000)
    four = 4 * math.sqrt(2 / 100_000)
    for mixing, want in ((lerp, 0.5), (variance_preserving_mix, 1.0), (slerp, 1.0)):
        assert mixing(a, b, 0.5).var().item() == pytest.approx(want, abs=four)
    torch.testing.assert_close(variance_preserving_mix(a, a, 0.5), math.sqrt(2) * a)
    torch.testing.assert_close(slerp(a, a, 0.3), a, rtol=1e-12, atol=1e-12)


def test_pictures_between_lie_row_by_row():
    a, b = images(0, 2, 3), images(1, 2, 3)
    got = between(a, b, [0, 0.25, 1], lerp).reshape(2, 3, 3)
    torch.testing.assert_close(got, torch.stack([a, 0.75 * a + 0.25 * b, b], 1))
    corners = images(2, 4, 3)
    sheet = grid_between(corners, 3, 5, lerp).reshape(3, 5, 3)
    torch.testing.assert_close(sheet[[0, 0, 2, 2], [0, 4, 0, 4]], corners)
    torch.testing.assert_close(sheet[1, 2], corners.mean(0))
    torch.testing.assert_close(sheet[1, 0], (corners[0] + corners[2]) / 2)


# Parts of a walk


def test_a_part_takes_the_samplers_times_between_its_ends():
    assert SubWalk(DDIM(5), start=500).pairs(LINEAR) == [
        (500, 400),
        (400, 200),
        (200, 0),
    ]
    assert SubWalk(DDIM(5), start=600, end=200).pairs(LINEAR) == [
        (600, 400),
        (400, 200),
    ]
    assert SubWalk(DDIM(5), end=700).pairs(LINEAR) == [(1000, 800), (800, 700)]
    assert SubWalk(SubWalk(DDIM(5), 700), end=300).pairs(LINEAR) == [
        (700, 600),
        (600, 400),
        (400, 300),
    ]
    assert SubWalk(DDIM(5)).pairs(LINEAR) == DDIM(5).pairs(LINEAR)
    assert (
        SubWalk(DDPM()).stochastic
        and not SubWalk(DDIM(5)).stochastic
        and InpaintingSampler(
            DDIM(5), images(0, 1, 2), torch.ones(1, 2, dtype=torch.bool)
        ).stochastic
    )


@pytest.mark.parametrize("sampler", [DDPM(steps=10), DDIM(10), DDIM(10, 0.6)], ids=str)
def test_parts_that_meet_make_the_whole(sampler):
    xT, whole = images(0, 2, 3), generator(5)
    first, second = SubWalk(sampler, end=400), SubWalk(sampler, start=400)
    g = generator(5)
    middle = sample(Denoiser(net, LINEAR), xT, first, generator=g)
    assert torch.equal(
        sample(Denoiser(net, LINEAR), middle, second, generator=g),
        sample(Denoiser(net, LINEAR), xT, sampler, generator=whole),
    )


@pytest.mark.parametrize(
    "schedule", [LINEAR, cosine_schedule()], ids=["linear", "cosine"]
)
def test_image_to_image_starts_at_the_time_of_its_noise(schedule):
    """A network that always answers c leaves x_0 + √((1−ᾱ_t)/ᾱ_t) (ε − c), whatever the
    strides."""
    for t in (1, 2, 77, 500, 999, 1000):
        abar = schedule.alpha_bar[t].item()
        want = 0.3 + math.sqrt((1 - abar) / abar) * (1.6 - 0.7)
        for sampler in (
            DDIM(10),
            DDIM(37, spacing="quadratic"),
            DDIM(timesteps=[1000]),
        ):
            got = image_to_image(
                Denoiser(always, schedule, clip=(-1e9, 1e9)),
                number(0.3),
                t,
                number(1.6),
                sampler,
            ).item()
            assert got == pytest.approx(want, rel=1e-9), (t, sampler)


@pytest.mark.parametrize("v", [0.01, 0.3, 1.0])
def test_image_to_image_keeps_the_proved_correlation(v):
    oracle = GaussianMixtureOracle(LINEAR, [1.0], [[0.3]], [v])
    for t in (1, 60, 300, 1000):
        base, signal, noise = (
            image_to_image(
                Denoiser(oracle, LINEAR), number(a), t, number(b), DDIM(20)
            ).item()
            for a, b in ((0, 0), (1, 0), (0, 1))
        )
        signal, noise, abar = signal - base, noise - base, LINEAR.alpha_bar[t].item()
        assert signal * math.sqrt(v) / math.sqrt(
            signal**2 * v + noise**2
        ) == pytest.approx(math.sqrt(abar * v / (abar * v + 1 - abar)), abs=1e-9)


def test_interpolation_through_the_noise_returns_its_ends():
    oracle = GaussianMixtureOracle(
        LINEAR, [0.5, 0.5], [[-0.5, 0.2], [0.5, 0.1]], [0.05, 0.05]
    )
    a, b = oracle.sample(4, generator(0)), oracle.sample(4, generator(1))
    got = interpolate(Denoiser(oracle, LINEAR), a, b, [0, 0.5, 1], DDIM(200)).reshape(
        4, 3, 2
    )
    assert (got[:, 0] - a).abs().max() < 0.05 and (got[:, 2] - b).abs().max() < 0.05
    noises = [ddim_encode(Denoiser(oracle, LINEAR), x, DDIM(200)) for x in (a, b)]
    torch.testing.assert_close(
        got[:, 1],
        sample(Denoiser(oracle, LINEAR), slerp(*noises, 0.5), DDIM(200)),
        rtol=1e-9,
        atol=1e-9,
    )
    torch.testing.assert_close(
        interpolate(Denoiser(lambda x, t: 0 * x, LINEAR), a, b, [0.3], DDIM(5)),
        slerp(a, b, 0.3),
        rtol=1e-9,
        atol=1e-9,
    )


def test_interpolation_at_t_mixes_images_linearly_and_noises_as_told():
    a, b, noise, other = (images(i, 2, 3) for i in range(4))
    t, abar = 400, LINEAR.alpha_bar[400].item()

    def ended(eps):
        return 0.75 * a + 0.25 * b + math.sqrt((1 - abar) / abar) * (eps - 0.7)

    for options, eps in (
        (dict(), noise),
        (dict(eps_b=other), slerp(noise, other, 0.25)),
        (dict(eps_b=other, mixing=lerp), 0.75 * noise + 0.25 * other),
    ):
        torch.testing.assert_close(
            interpolate_at(
                Denoiser(always, LINEAR),
                a,
                b,
                [0.25],
                t,
                noise,
                sampler=DDIM(10),
                **options,
            ),
            ended(eps),
            rtol=1e-10,
            atol=1e-10,
        )


def test_samples_that_share_a_beginning_are_correlated_as_proved():
    """Data N(0, 1), for which σ² = β is exact: the correlation of two samples that
    share x_t is ᾱ_t."""
    oracle, n, t = GaussianMixtureOracle(LINEAR, [1.0], [[0.0]], [1.0]), 20_000, 300
    pairs = sample_with_shared_start(
        Denoiser(oracle, LINEAR),
        draw_noise((n, 1), generator(0), dtype=torch.float64),
        2,
        t,
        DDPM(variance="beta", timesteps=(1000, t, 50, 1)),
        generator=generator(1),
    ).reshape(n, 2)
    z = (
        math.atanh(torch.corrcoef(pairs.T)[0, 1].item())
        - math.atanh(LINEAR.alpha_bar[t].item())
    ) * math.sqrt(n - 3)
    assert abs(z) < 4


def test_a_shared_beginning_continues_the_walk_that_began_it():
    xT = images(0, 2, 3)
    got = sample_with_shared_start(
        Denoiser(net, LINEAR),
        xT,
        3,
        400,
        DDPM(steps=10),
        generator=generators(0, 1, 2, 3, 4, 5),
    ).reshape(2, 3, 3)
    torch.testing.assert_close(
        got[:, 0],
        sample(Denoiser(net, LINEAR), xT, DDPM(steps=10), generator=generators(0, 3)),
    )
    assert (got[:, 0] - got[:, 1]).abs().min() > 1e-3
    torch.testing.assert_close(
        sample_with_shared_start(
            Denoiser(net, LINEAR),
            xT[1:],
            3,
            400,
            DDPM(steps=10),
            generator=generators(3, 4, 5),
        ).reshape(3, 3),
        got[1],
    )
    assert torch.equal(
        sample_with_shared_start(Denoiser(net, LINEAR), xT, 2, 1000, DDIM(5)),
        sample(Denoiser(net, LINEAR), xT, DDIM(5)).repeat_interleave(2, 0),
    )
    labelled = sample_with_shared_start(
        Denoiser(net, LINEAR), xT, 2, 600, DDIM(5), y=torch.tensor([1, 2])
    )
    torch.testing.assert_close(
        labelled[::2],
        sample(Denoiser(net, LINEAR), xT, DDIM(5), y=torch.tensor([1, 2])),
    )


# Inpainting


def test_the_way_up_is_the_forward_process():
    for schedule in (LINEAR, cosine_schedule()):
        for s, t in ((0, 1), (0, 1000), (499, 500), (10, 700)):
            abar_s, abar_t = schedule.alpha_bar[s].item(), schedule.alpha_bar[t].item()
            want = (
                math.sqrt(abar_t / abar_s) * 0.3 + math.sqrt(1 - abar_t / abar_s) * 1.6
            )
            assert noise_up(
                schedule, number(0.3), s, t, number(1.6)
            ).item() == pytest.approx(want, rel=1e-9)


def test_known_pixels_follow_the_forward_process_and_are_exact_in_the_end():
    x0, xT, mask = (
        images(0, 2, 4),
        images(1, 2, 4),
        torch.tensor([[True, False, True, False]]),
    )
    steps = list(
        sample_steps(
            Denoiser(net, LINEAR),
            xT,
            InpaintingSampler(DDIM(7), x0, mask),
            generator=generator(3),
        )
    )
    again = generator(3)
    for step in steps:
        noise = (
            draw_noise(x0.shape, again, dtype=x0.dtype)
            if step.s
            else torch.zeros_like(x0)
        )
        torch.testing.assert_close(
            step.x[:, ::2], q_sample(LINEAR, x0, step.s, noise)[:, ::2]
        )
    assert torch.equal(steps[-1].x[:, ::2], x0[:, ::2])


def test_blocks_are_walked_as_often_as_asked():
    x0, mask = images(0, 1, 2), torch.tensor([[True, False]])

    def times(**options):
        return [
            (step.t, step.s)
            for step in inpaint_steps(
                Denoiser(net, LINEAR),
                x0,
                mask,
                images(1, 1, 2),
                DDPM(steps=5),
                **options,
            )
        ]

    top, low, last = [(1000, 800), (800, 600)], [(600, 400), (400, 200)], [(200, 0)]
    assert times(resamples=1) == DDPM(steps=5).pairs(LINEAR)
    assert times(resamples=3, jump=2) == 3 * top + 3 * low + 3 * last
    assert times(resamples=2, jump=1) == [
        pair for pair in DDPM(steps=5).pairs(LINEAR) for _ in range(2)
    ]


def filled_pixel(schedule, S, resamples, jump, r):
    """Exact (k, u) of the filled pixel, x = k·known + N(0, u), for two pixels of
    variance 1 and correlation r; in plain floats."""
    abar, sigma = schedule.alpha_bar.tolist(), np.array([[1, r], [r, 1]])
    pairs, k, u, known = DDPM(steps=S).pairs(schedule), 0.0, 1.0, (0.0, 1.0)
    for i in range(0, S, jump):
        block = pairs[i : i + jump]
        for again in range(resamples):
            if again:
                kept = abar[block[0][0]] / abar[block[-1][1]]
                k, u, known = (
                    math.sqrt(kept) * k,
                    kept * u + 1 - kept,
                    (math.sqrt(abar[block[0][0]]), 1 - abar[block[0][0]]),
                )
            for t, s in block:
                beta = 1 - abar[t] / abar[s]
                belief = (
                    math.sqrt(abar[t])
                    * sigma
                    @ np.linalg.inv(abar[t] * sigma + (1 - abar[t]) * np.eye(2))
                )
                mean = math.sqrt(abar[s]) * beta / (1 - abar[t]) * belief + math.sqrt(
                    abar[t] / abar[s]
                ) * (1 - abar[s]) / (1 - abar[t]) * np.eye(2)
                k, u = (
                    mean[1, 1] * k + mean[1, 0] * known[0],
                    mean[1, 1] ** 2 * u
                    + mean[1, 0] ** 2 * known[1]
                    + (1 - abar[s]) / (1 - abar[t]) * beta,
                )
                known = math.sqrt(abar[s]), 1 - abar[s]
    return k, u


@pytest.mark.parametrize("resamples, jump", [(1, 1), (5, 1), (3, 4)])
def test_a_filled_pixel_has_the_exact_distribution_of_the_method(resamples, jump):
    n, r, sigma = 20_000, 0.9, torch.tensor([[1, 0.9], [0.9, 1]], dtype=torch.float64)

    def network(x, t):  # predicts x_0
        abar = LINEAR.alpha_bar[t[0]]
        return x @ (
            abar.sqrt()
            * sigma
            @ torch.linalg.inv(
                abar * sigma + (1 - abar) * torch.eye(2, dtype=torch.float64)
            )
        )

    known, filled = inpaint(
        Denoiser(network, LINEAR, X0),
        images(0, n, 2),
        torch.tensor([[True, False]]),
        images(1, n, 2),
        DDPM(steps=20),
        resamples=resamples,
        jump=jump,
        generator=generator(2),
    ).T
    k, u = filled_pixel(LINEAR, 20, resamples, jump, r)
    got = (known * filled).mean() / known.square().mean()
    assert abs(got - k) < 4 * math.sqrt(u / n) and abs(
        (filled - got * known).var() - u
    ) < 4 * u * math.sqrt(2 / n)


def test_resampling_comes_nearer_to_the_conditional_distribution():
    ks = [
        filled_pixel(LINEAR, 250, resamples, 10, 0.9)[0] for resamples in (1, 2, 5, 10)
    ]
    assert ks == sorted(ks) and ks[0] < 0.65 and 0.87 < ks[-1] < 0.9


def test_an_image_is_filled_alike_whatever_the_batch():
    x0, xT, mask = (
        images(0, 4, 3),
        images(1, 4, 3),
        torch.tensor([[True, False, False]]),
    )

    def filled(rows, *numbers):
        return inpaint(
            Denoiser(net, LINEAR),
            x0[rows],
            mask,
            xT[rows],
            DDPM(steps=6),
            resamples=3,
            jump=2,
            generator=generators(*numbers),
        )

    torch.testing.assert_close(
        filled(slice(1, 3), 6, 7),
        filled(slice(None), 5, 6, 7, 8)[1:3],
        rtol=1e-12,
        atol=1e-12,
    )

    def varied(rows, *numbers):
        return image_to_image(
            Denoiser(net, LINEAR),
            x0[rows],
            500,
            xT[rows],
            DDPM(steps=6),
            generator=generators(*numbers),
        )

    torch.testing.assert_close(
        varied(slice(1, 3), 6, 7),
        varied(slice(None), 5, 6, 7, 8)[1:3],
        rtol=1e-12,
        atol=1e-12,
    )


# Trajectories


def test_a_trajectory_keeps_every_kth_step_and_the_last():
    steps = list(sample_steps(Denoiser(net, LINEAR), images(0, 2, 3), DDIM(7)))
    assert (
        trajectory(iter(steps), 3) == [steps[2], steps[5], steps[6]]
        and trajectory(steps) == steps
        and trajectory([], 2) == []
    )
    assert trajectory(steps, 7) == steps[-1:] == trajectory(steps, 100)
    torch.testing.assert_close(
        stack_steps(steps[:3], "x0").reshape(2, 3, 3),
        torch.stack([step.x0 for step in steps[:3]], 1),
    )
    torch.testing.assert_close(stack_steps(steps)[6], steps[6].x[0])


# Mistakes

BATCH, KEEP = images(0, 2, 3), torch.tensor([[True, False, False]])


@pytest.mark.parametrize(
    "call, names",
    [
        (lambda: slerp(BATCH, BATCH[:1], 0.5), ["b", "(2, 3)", "(1, 3)"]),
        (lambda: lerp(BATCH, BATCH, 1.5), ["w", "[0, 1]", "1.5"]),
        (
            lambda: variance_preserving_mix(
                BATCH, BATCH, torch.tensor([0.1, 0.2, 0.3])
            ),
            ["w", "2", "(3,)"],
        ),
        (lambda: slerp(BATCH, -BATCH, 0.5), ["opposite"]),
        (lambda: slerp(BATCH, 0 * BATCH, 0.5), ["zero"]),
        (lambda: between(BATCH, BATCH, []), ["weights"]),
        (lambda: grid_between(BATCH, 2, 2), ["corners", "4", "2"]),
        (lambda: grid_between(images(0, 4, 2), 1, 2), ["rows", "1"]),
        (
            lambda: interpolate(
                Denoiser(net, LINEAR), BATCH, BATCH, [0.5], DDPM(steps=5)
            ),
            ["sampler", "eta = 0"],
        ),
        (lambda: SubWalk(DDIM(5), start=0).pairs(LINEAR), ["start", "1..1000", "0"]),
        (
            lambda: SubWalk(DDIM(5), start=1001).pairs(LINEAR),
            ["start", "1..1000", "1001"],
        ),
        (
            lambda: SubWalk(DDIM(5), start=300, end=300).pairs(LINEAR),
            ["end", "0..299", "300"],
        ),
        (
            lambda: image_to_image(
                Denoiser(net, LINEAR, clip=(-1, 1)), 5 * BATCH, 300, BATCH, DDIM(5)
            ),
            ["x0", "clip"],
        ),
        (
            lambda: image_to_image(
                Denoiser(net, LINEAR), BATCH, 300, BATCH[:1], DDIM(5)
            ),
            ["eps", "(2, 3)", "(1, 3)"],
        ),
        (
            lambda: sample_with_shared_start(Denoiser(net, LINEAR), BATCH, 0, 300),
            ["n", "0"],
        ),
        (
            lambda: sample_with_shared_start(Denoiser(net, LINEAR), BATCH, 2, 0),
            ["t", "1..1000", "0"],
        ),
        (
            lambda: inpaint(Denoiser(net, LINEAR), BATCH, KEEP.float(), BATCH),
            ["mask", "bool", "float32"],
        ),
        (
            lambda: inpaint(Denoiser(net, LINEAR), BATCH, KEEP[:, :2], BATCH),
            ["mask", "(2, 3)", "(1, 2)"],
        ),
        (
            lambda: inpaint(Denoiser(net, LINEAR), BATCH, KEEP, BATCH, resamples=0),
            ["resamples", "0"],
        ),
        (
            lambda: inpaint(
                Denoiser(net, LINEAR, clip=(-1, 1)), 5 * BATCH, KEEP, BATCH
            ),
            ["x0", "clip"],
        ),
        (lambda: trajectory([], 0), ["every", "0"]),
        (lambda: stack_steps([], "x"), ["steps"]),
        (lambda: stack_steps([], "eps"), ["field", "eps"]),
    ],
)
def test_mistakes_are_refused(call, names):
    with pytest.raises(ValueError) as refusal:
        call()
    assert all(name in str(refusal.value) for name in names), str(refusal.value)


def test_a_dynamic_threshold_is_a_clip_too():
    schedule, x0 = linear_schedule(), images(0, 2, 1, 4, 4).clamp(-1, 1)

    def net(x, t, y=None):
        return 0.5 * torch.tanh(x)

    out = image_to_image(
        Denoiser(net, schedule, clip=DynamicThreshold()),
        x0,
        300,
        images(1, 2, 1, 4, 4),
        DDIM(10),
    )
    assert out.isfinite().all() and out.abs().max() <= 1 + 1e-9
    with pytest.raises(ValueError, match="range of clip"):
        image_to_image(
            Denoiser(net, schedule, clip=DynamicThreshold()),
            2 * x0,
            300,
            images(1, 2, 1, 4, 4),
            DDIM(10),
        )


def told(x, t, y=None):
    "x̂_0 is the label, or 0."
    return 0 * x if y is None else 0 * x + y[:, None]


def test_labels_reach_the_model_on_every_route():
    denoiser, y = Denoiser(told, LINEAR, X0), torch.tensor([0.25, -0.5])
    x0, eps = images(0, 2, 3).clamp(-1, 1), images(1, 2, 3)
    hole = torch.tensor([[True, False, False]])
    want = y[:, None].double().expand(2, 3)
    by = dict(y=y, generator=generator(0))
    sampler = DDPM(4)
    torch.testing.assert_close(
        image_to_image(denoiser, x0, 300, eps, sampler, **by), want
    )
    filled = inpaint(denoiser, x0, hole, eps, sampler, resamples=2, jump=2, **by)
    torch.testing.assert_close(filled, torch.where(hole, x0, want))
    for t in (300, 1000):  # parted on the way, and at once
        both = sample_with_shared_start(denoiser, eps, 2, t, sampler, **by)
        torch.testing.assert_close(both, want.repeat_interleave(2, 0))


def test_labels_reach_the_model_in_the_common_part_too():
    asked = []

    def model(x, t, y=None):
        asked.append((int(t[0]), y.tolist()))
        return 0 * x

    denoiser, y = Denoiser(model, LINEAR, X0), torch.tensor([4, 5])
    sample_with_shared_start(denoiser, images(0, 2, 3), 2, 500, DDPM(2), y=y)
    assert asked == [(1000, [4, 5]), (500, [4, 4, 5, 5])]


def test_clip_holds_on_the_way_up_and_on_the_way_down():
    "A model whose x̂_0 is 3, cut at 0.5: everything ends there."
    loud = Denoiser(lambda x, t: 0 * x + 3, LINEAR, X0, (-0.5, 0.5))
    a, b, eps = number(0.1), number(-0.2), number(0.7)
    half = number(0.5)
    torch.testing.assert_close(interpolate(loud, a, b, [0.5], DDIM(4)), half)
    torch.testing.assert_close(interpolate_at(loud, a, b, [0.5], 300, eps), half)
    torch.testing.assert_close(image_to_image(loud, a, 300, eps, DDPM(3)), half)
    torch.testing.assert_close(sample_with_shared_start(loud, eps, 1, 400), half)
    quiet = Denoiser(lambda x, t: 0 * x, LINEAR)  # ε̂ = 0: it sees x_t/√ᾱ_t
    cut = Denoiser(quiet.model, LINEAR, clip=(-0.5, 0.5))
    up, up_cut = (ddim_encode(d, number(0.8), DDIM(4)) for d in (quiet, cut))
    assert not torch.allclose(up, up_cut)


def test_a_solver_keeps_its_memory_inside_of_other_samplers():
    "With two steps in one part, the second draws its line through both answers."
    denoiser, start = Denoiser(net, LINEAR), images(0, 2, 3)
    for order, alike in ((1, False), (2, True)):
        solver = DPMSolver(timesteps=[900, 500, 100])
        other = DPMSolver(timesteps=[900, 500, 100], order=order)
        want = sample(denoiser, start, solver)
        assert torch.equal(sample(denoiser, start, SubWalk(other)), want) == alike
        nothing = torch.zeros(1, 3, dtype=torch.bool)
        keep = InpaintingSampler(other, start, nothing)
        got = sample(denoiser, start, keep, generator=generator(0))
        assert torch.equal(got, want) == alike


def test_numpys_integers_are_times_and_numbers():
    denoiser, x, t = Denoiser(net, LINEAR), images(0, 2, 3), np.int64(300)
    eps = images(1, 2, 3)
    for f in (
        lambda t, n: image_to_image(denoiser, x, t, eps, DDIM(4)),
        lambda t, n: sample_with_shared_start(denoiser, x, n, t, DDIM(4)),
        lambda t, n: noise_up(LINEAR, x, n, t, eps),
        lambda t, n: trajectory(sample_steps(denoiser, x, DDIM(4)), n)[-1].x,
    ):
        assert torch.equal(f(t, np.int64(2)), f(300, 2))


QUIET = Denoiser(lambda x, t, y=None: 0 * x, LINEAR, X0)


def asked_of(call):
    "The times at which a model is asked, and the batches."
    asked = []

    def model(x, t, y=None):
        asked.append((int(t[0]), len(x)))
        return 0 * x

    call(Denoiser(model, LINEAR, X0))
    return asked


def test_the_defaults_of_editing():
    x, all_times = number(0.1), list(range(1000, 0, -1))
    fifty = list(range(1000, 0, -20))
    times = lambda call: [t for t, _ in asked_of(call)]
    got = times(lambda d: interpolate(d, x, x, [0.5]))
    assert got == 2 * fifty[::-1] + fifty
    got = times(lambda d: image_to_image(d, x, 60, x))
    assert got == all_times[-60:]
    got = times(lambda d: interpolate_at(d, x, x, [0.5], 60, x))
    assert got == all_times[-60:]
    got = asked_of(lambda d: sample_with_shared_start(d, x, 3, 60))
    assert got == [(t, 3 if t <= 60 else 1) for t in all_times]
    assert SubWalk(DDIM()) == SubWalk(DDIM(), None, 0)
    a, b, w = images(0, 2, 3), images(1, 2, 3), [0.25, 0.5]
    assert torch.equal(between(a, b, w), between(a, b, w, slerp))
    corners = images(2, 4, 3)
    assert torch.equal(grid_between(corners, 2, 2), grid_between(corners, 2, 2, slerp))


def test_the_mixture_that_is_asked_for_is_made():
    a, b = 0.3 * images(0, 2, 3), 0.3 * images(1, 2, 3)
    still = Denoiser(lambda x, t: 0 * x, LINEAR)  # ε̂ = 0: the way up only shrinks
    for mixing in (lerp, variance_preserving_mix, slerp):
        got = interpolate(still, a, b, [0.3, 0.6], DDIM(5), mixing=mixing)
        torch.testing.assert_close(got, between(a, b, [0.3, 0.6], mixing))
    wide = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for turn in (0.01, 1.0, 2.6, 3.1):  # almost opposite is not opposite
        end = torch.tensor([[math.cos(turn), math.sin(turn)]], dtype=torch.float64)
        half = torch.tensor([[math.cos(turn / 2), math.sin(turn / 2)]]).double()
        torch.testing.assert_close(slerp(wide, end, 0.5), half, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: lerp(BATCH, BATCH, -0.1), r"w must lie in \[0, 1\]"),
        (lambda: lerp(BATCH, BATCH, torch.ones(2, 1)), "w must be a number, or one"),
        (
            lambda: between(BATCH, BATCH, torch.ones(2, 2)),
            "weights must be one or more",
        ),
        (lambda: between(BATCH, BATCH, 0.5), "weights must be one or more"),
        (lambda: between(BATCH, BATCH[:1], [0.5]), "b must have the shape of a"),
        (lambda: grid_between(images(0, 4, 2), 2, 1), "rows and columns must be at"),
        (lambda: SubWalk(DDIM(5), end=-1).pairs(LINEAR), r"end must lie in 0\.\.999"),
        (lambda: SubWalk(DDIM(5), 9, 10).pairs(LINEAR), "below start = 9, got 10"),
        (
            lambda: sample_with_shared_start(
                QUIET, BATCH, 2, 801, DDPM(timesteps=[800])
            ),
            r"t must lie in 1\.\.800, where the walk starts, got 801",
        ),
        (lambda: inpaint(QUIET, BATCH, KEEP, BATCH, jump=0), "resamples and jump must"),
        (lambda: inpaint(QUIET, BATCH, KEEP[0], BATCH), "mask must have the shape of"),
        (lambda: InpaintingSampler(DDIM(5), BATCH, KEEP.T), "mask must have the shape"),
        (lambda: InpaintingSampler(DDIM(5), BATCH, KEEP.long()), "mask must be bool"),
        (
            lambda: InpaintingSampler(DDIM(5), BATCH, KEEP).step(
                LINEAR, BATCH, QUIET(BATCH, 9), 9, 5
            ),
            "noise must be a tensor where a step is stochastic",
        ),
    ],
)
def test_more_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("clip", [(-0.5, 2.0), DynamicThreshold()])
def test_clean_data_may_lie_on_the_borders_of_clip_and_not_beyond(clip):
    low, high = (-1.0, 1.0) if isinstance(clip, DynamicThreshold) else clip
    denoiser, b = Denoiser(QUIET.model, LINEAR, X0, clip), number(0.1)
    walks = (
        lambda x: image_to_image(denoiser, x, 3, b),
        lambda x: interpolate(denoiser, x, b, [0.5], DDIM(2), mixing=lerp),
        lambda x: interpolate(denoiser, b, x, [0.5], DDIM(2), mixing=lerp),
        lambda x: interpolate_at(denoiser, x, b, [0.5], 3, b),
        lambda x: interpolate_at(denoiser, b, x, [0.5], 3, b),
        lambda x: inpaint(denoiser, x, b > 0, b, DDIM(2), resamples=1),
    )
    for walk in walks:
        for fine in (low - 1e-6, low, high, high + 1e-6):
            assert walk(number(fine)).isfinite().all()
        for wrong in (low - 2e-6, low - 0.5, high + 2e-6, high + 0.5):
            with pytest.raises(ValueError, match="x0 must lie in .* the range of clip"):
                walk(number(wrong))
    hole = torch.zeros(1, 1, dtype=torch.bool)  # what it leaves out is not looked at
    assert inpaint(denoiser, number(9.0), hole, b, DDIM(2)).isfinite().all()
    if isinstance(clip, tuple):  # no images have no values outside of it
        nothing = torch.zeros(0, 1)
        assert image_to_image(denoiser, nothing, 3, nothing).shape == (0, 1)


def test_ends_of_parts_and_numbers_on_the_border_are_taken():
    assert SubWalk(DDIM(5), 1, 0).pairs(LINEAR) == [(1, 0)]
    assert SubWalk(DDIM(5), 1000, 999).pairs(LINEAR) == [(1000, 999)]
    assert SubWalk(DDIM(5), 400, 200).pairs(LINEAR) == [(400, 200)]
    assert grid_between(images(0, 4, 2), 2, 2).shape == (4, 2)
    assert between(BATCH, BATCH, [0.5]).shape == (2, 3)
    for t in (1, 1000):
        got = sample_with_shared_start(Denoiser(net, LINEAR), BATCH, 1, t, DDIM(5))
        assert got.shape == (2, 3)
    step = next(sample_steps(Denoiser(net, LINEAR), BATCH, DDIM(5)))
    assert trajectory([step]) == [step] == trajectory([step], 5)
    with pytest.raises(ValueError, match="every must be at least 1"):
        trajectory([step], 0)
    assert torch.equal(stack_steps([step]), step.x)


def test_half_precision_is_widened_everywhere():
    x, e = BATCH.half(), images(9, 2, 3).half()
    up = noise_up(LINEAR, x, 400, 700, e)
    want = noise_up(LINEAR, x.double(), 400, 700, e.double())
    assert up.dtype == torch.float32
    torch.testing.assert_close(up.double(), want, rtol=1e-6, atol=1e-6)
    for mixing in (lerp, variance_preserving_mix, slerp):
        exact = mixing(x.double(), e.double(), 0.3)
        torch.testing.assert_close(mixing(x, e, 0.3).double(), exact, rtol=0, atol=2e-6)
    got = inpaint(QUIET, x, KEEP, e, DDIM(2), resamples=1)
    assert got.dtype == torch.float32
    assert torch.equal(got, torch.where(KEEP, x.float(), 0))


def test_inpainting_is_algorithm_1_to_the_last_digit():
    "Noise for the known pixels, then for the way up, from one generator, in float64."
    x0, xT, solver = images(0, 2, 3), images(1, 2, 3), DPMSolver(4)
    denoiser, g, y = Denoiser(net, LINEAR), generator(7), torch.tensor([1.0, 2.0])
    draw = lambda: torch.randn(2, 3, generator=g, dtype=torch.float64)
    x, pairs, want = xT, solver.pairs(LINEAR), []
    for block in (pairs[:3], pairs[3:]):
        for again in range(2):
            if again:
                alpha, beta = transition(LINEAR, block[-1][1], block[0][0])
                x = alpha.sqrt() * x + beta.sqrt() * draw()
            before = None
            for t, s in block:
                pred = denoiser(x, t, y)
                known = q_sample(LINEAR, x0, s, draw()) if s else x0
                free = solver.step(LINEAR, x, pred, t, s, None, before)
                x, before = torch.where(KEEP, known, free), (t, pred)
                want.append((t, s, x))
    how = dict(resamples=2, jump=3, y=y)
    steps = inpaint_steps(denoiser, x0, KEEP, xT, solver, **how, generator=generator(7))
    for step, (t, s, x) in zip(steps, want, strict=True):
        assert (step.t, step.s) == (t, s) and torch.equal(step.x, x)
    got = inpaint(denoiser, x0, KEEP, xT, solver, **how, generator=generator(7))
    assert torch.equal(got, x)


def test_each_route_draws_from_its_generator_alone():
    denoiser, a, b = Denoiser(net, LINEAR), images(0, 2, 3), images(1, 2, 3)
    sampler = DDPM(4)
    for walk in (
        lambda g: image_to_image(denoiser, a, 500, b, sampler, generator=g),
        lambda g: interpolate_at(
            denoiser, a, b, [0.5], 500, a, b, sampler, generator=g
        ),
        lambda g: sample_with_shared_start(denoiser, a, 2, 500, sampler, generator=g),
        lambda g: inpaint(denoiser, a, KEEP, b, sampler, resamples=2, generator=g),
    ):
        torch.manual_seed(0)
        first = walk(generator(3))
        torch.manual_seed(1)
        assert torch.equal(first, walk(generator(3)))
        assert not torch.equal(first, walk(generator(4)))


def test_contexts_are_told_apart_after_a_common_beginning():
    asked = []
    model = lambda x, t, y: asked.append(y.tolist()) or 0 * x
    contexts = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)
    walk = dict(y=contexts, sampler=DDIM(2))
    sample_with_shared_start(Denoiser(model, LINEAR, X0), BATCH, 2, 500, **walk)
    each = [[0.1, 0.2], [0.1, 0.2], [0.3, 0.4], [0.3, 0.4]]
    assert asked == [contexts.tolist(), each]


def test_the_defaults_of_inpainting():
    for f in (inpaint, inpaint_steps):
        default = {k: p.default for k, p in inspect.signature(f).parameters.items()}
        assert default["sampler"] == DDPM(steps=250)
        assert (default["resamples"], default["jump"]) == (10, 10)
