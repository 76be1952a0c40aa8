"""Whole walks beside diffusers' schedulers, with the same network and the same noise.

Where their scheduler follows the papers the two agree to 1e-9, once it is given our float64 table. Where it does not, a test shows by how much, and
which of the two keeps the distribution that the papers prove. Their times are ours − 1."""

from itertools import product

import numpy as np
import pytest
import torch
from strategies import images

from ddpm_lit import DDIM, DDPM, EPS, V, X0, Denoiser, GaussianMixtureOracle
from ddpm_lit import cosine_schedule
from ddpm_lit import ddim_encode, linear_schedule, q_sample, sample
from ddpm_lit import scaled_linear_schedule, sigmoid_schedule, zero_terminal_snr
from ddpm_lit.prediction import clip_prediction

diffusers = pytest.importorskip("diffusers")
KINDS = {"epsilon": EPS, "sample": X0, "v_prediction": V}
SCHEDULES = {
    "linear": linear_schedule(),
    "scaled_linear": scaled_linear_schedule(),
    "cosine": cosine_schedule(),
    "sigmoid": sigmoid_schedule(),
    "T = 300": linear_schedule(300, 3e-4, 0.06),
}
SHAPE = (2, 1, 4, 4)


def theirs(kind, schedule, spacing, steps, table=True, **options):
    made = kind(
        num_train_timesteps=schedule.T,
        trained_betas=schedule.beta[1:].numpy(),
        timestep_spacing=spacing,
        clip_sample_range=1.0,
        **options,
    )
    if table:
        made.alphas_cumprod = schedule.alpha_bar[1:]
        for one in ("final_alpha_cumprod", "initial_alpha_cumprod", "one"):
            if hasattr(made, one):
                setattr(made, one, torch.tensor(1.0, dtype=torch.float64))
    made.set_timesteps(steps)
    return made


def net(x, t):
    "Smooth and bounded, and different at every time; `t` is theirs."
    return 0.8 * torch.tanh(x) + 0.1 * torch.cos(3 * x + t / 100)


def our_walk(sampler, schedule, param, x, noises, clip):
    for (t, s), noise in zip(sampler.pairs(schedule), noises):
        pred = param.decode(schedule, net(x, t - 1), x, t)
        if clip:
            pred = clip_prediction(schedule, pred, x, t, (-1, 1))
        x = sampler.step(schedule, x, pred, t, s, noise)
    return x


def their_ddim_walk(scheduler, x, noises, eta):
    for t, noise in zip(scheduler.timesteps, noises):
        x = scheduler.step(
            net(x, int(t)),
            int(t),
            x,
            eta=eta,
            use_clipped_model_output=True,
            variance_noise=noise,
        ).prev_sample
    return x


def largest(ours, theirs):
    return ((ours - theirs).abs().max() / max(1.0, theirs.abs().max().item())).item()


# The same walk


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_ddim_walks(name, kind):
    "Spacings and numbers of steps for which their `prev = t − T//S` is the next time."
    schedule, param, worst = SCHEDULES[name], KINDS[kind], {}
    for (spacing, steps), eta, clip in product(
        [
            ("trailing", 10),
            ("trailing", 50),
            ("leading", 10),
            ("leading", 30),
            ("leading", 7),
        ],
        (0.0, 0.5, 1.0),
        (False, True),
    ):
        if spacing == "trailing" and schedule.T % steps:
            continue
        # x̂_0 is 1e4 there, and with it the roundings
        if (
            spacing == "leading"
            and not clip
            and kind == "epsilon"
            and name in ("cosine", "sigmoid")
        ):
            continue
        ours = DDIM(steps, eta, spacing)
        other = theirs(
            diffusers.DDIMScheduler,
            schedule,
            spacing,
            steps,
            prediction_type=kind,
            clip_sample=clip,
        )
        assert [t - 1 for t, _ in ours.pairs(schedule)] == other.timesteps.tolist()
        x, noises = images(1, *SHAPE), images(2, steps, *SHAPE)
        if not clip and kind == "epsilon" and schedule.snr[-1] < 1e-6:
            continue
        worst[spacing, steps, eta, clip] = largest(
            our_walk(ours, schedule, param, x, noises, clip),
            their_ddim_walk(other, x, noises, eta),
        )
    assert len(worst) >= 6 and max(worst.values()) < 1e-9, worst


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_ddpm_walks(name, kind):
    """Also where S does not divide T: this scheduler looks the next time up. A walk of
    `fixed_large` is compared up to its last step but one."""
    schedule, param, worst = SCHEDULES[name], KINDS[kind], {}
    for (spacing, steps), (variance, their_name) in product(
        [
            ("trailing", 10),
            ("trailing", 64),
            ("leading", 10),
            ("leading", 64),
            ("linspace", 10),
        ],
        [("posterior", "fixed_small"), ("beta", "fixed_large")],
    ):
        ours = DDPM(steps, variance, spacing)
        other = theirs(
            diffusers.DDPMScheduler,
            schedule,
            spacing,
            steps,
            prediction_type=kind,
            clip_sample=True,
            variance_type=their_name,
        )
        other.timesteps = torch.tensor([t - 1 for t, _ in ours.pairs(schedule)])
        x = y = images(1, *SHAPE)
        for t, s in ours.pairs(schedule)[: -1 if variance == "beta" else None]:
            noise = torch.randn(
                SHAPE, generator=torch.Generator().manual_seed(t), dtype=torch.float64
            )
            pred = clip_prediction(
                schedule, param.decode(schedule, net(x, t - 1), x, t), x, t, (-1, 1)
            )
            x = ours.step(schedule, x, pred, t, s, noise)
            y = other.step(
                net(y, t - 1), t - 1, y, generator=torch.Generator().manual_seed(t)
            ).prev_sample
        worst[spacing, steps, variance] = largest(x, y)
    assert max(worst.values()) < 1e-9, worst


def their_encoding(scheduler, model, x):
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, int(t) + 1), int(t), x).prev_sample
    return x


@pytest.mark.parametrize("name", SCHEDULES)
def test_encoding(name):
    "Their inverse scheduler asks at the upper time, as `ddim_encode` does."
    schedule, x = SCHEDULES[name], images(1, *SHAPE)

    def model(x, t):
        return net(x, int(torch.as_tensor(t).flatten()[0]) - 1)

    for spacing, steps in (("trailing", 10), ("leading", 10), ("leading", 60)):
        other = theirs(
            diffusers.DDIMInverseScheduler,
            schedule,
            spacing,
            steps,
            prediction_type="epsilon",
            clip_sample=False,
        )
        assert (
            largest(
                ddim_encode(Denoiser(model, schedule), x, DDIM(steps, spacing=spacing)),
                their_encoding(other, model, x),
            )
            < 1e-9
        ), (spacing, steps)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_tables_alone_make_the_walks_drift(kind):
    """The formulas agree, the digits do not: 250 steps with their own table are off by
    ten times what is allowed above, and more."""
    schedule, steps = SCHEDULES["linear"], 250
    x, noises = images(1, *SHAPE), images(2, steps, *SHAPE)
    ours = our_walk(DDIM(steps), schedule, KINDS[kind], x, noises, True)
    drift = [
        largest(
            ours,
            their_ddim_walk(
                theirs(
                    diffusers.DDIMScheduler,
                    schedule,
                    "trailing",
                    steps,
                    table,
                    prediction_type=kind,
                    clip_sample=True,
                ),
                x,
                noises,
                0.0,
            ),
        )
        for table in (True, False)
    ]
    assert drift[0] < 1e-9 and 1e-8 < drift[1] < 1e-2


def test_dynamic_thresholding():
    from ddpm_lit import DynamicThreshold

    schedule, x, t = SCHEDULES["linear"], 2 * images(3, *SHAPE), 600
    other = theirs(
        diffusers.DDIMScheduler,
        schedule,
        "trailing",
        10,
        prediction_type="sample",
        thresholding=True,
        dynamic_thresholding_ratio=0.9,
        sample_max_value=1.5,
        clip_sample=False,
    )
    pred = clip_prediction(
        schedule, X0.decode(schedule, x, x, t), x, t, DynamicThreshold(0.9, 1.0, 1.5)
    )
    torch.testing.assert_close(
        pred.x0, other._threshold_sample(x), rtol=1e-12, atol=1e-12
    )


# Where they differ, and which of the two the proof supports


def one_image(schedule, t, seed=0):
    """x_0, ε and the x_t that they make: with the right ε̂ every DDIM step must land on
    the x_s of the same pair."""
    x0, eps = images(seed, *SHAPE).clamp(-1, 1), images(seed + 1, *SHAPE)
    return x0, eps, q_sample(schedule, x0, t, eps)


@pytest.mark.parametrize(
    "spacing, steps, wrong",
    [("linspace", 10, 9), ("trailing", 300, 100), ("linspace", 50, 19)],
)
def test_their_previous_time_is_wrong_where_strides_are_uneven(spacing, steps, wrong):
    """`prev = t − T//S` is not the next time of the list. With the true ε, our step
    lands on the x_s of that time and theirs beside it."""
    schedule, ours = SCHEDULES["linear"], DDIM(steps, spacing=spacing)
    other = theirs(
        diffusers.DDIMScheduler,
        schedule,
        spacing,
        steps,
        prediction_type="epsilon",
        clip_sample=False,
    )
    assert [t - 1 for t, _ in ours.pairs(schedule)] == other.timesteps.tolist()
    off = []
    for t, s in ours.pairs(schedule):
        x0, eps, xt = one_image(schedule, t)
        want = q_sample(schedule, x0, s, eps)
        pred = EPS.decode(schedule, eps, xt, t)
        assert (ours.step(schedule, xt, pred, t, s, None) - want).abs().max() < 1e-9
        off.append(
            (other.step(eps, t - 1, xt).prev_sample - want).abs().max().item() > 1e-9
        )
    assert sum(off) == wrong


def test_their_last_step_adds_noise_with_fixed_large_and_trailing_times():
    """Algorithm 2 adds none. Theirs asks whether t > 0, and ten trailing times end at
    99."""
    schedule, ours = SCHEDULES["linear"], DDPM(10, "beta")
    other = theirs(
        diffusers.DDPMScheduler,
        schedule,
        "trailing",
        10,
        prediction_type="epsilon",
        clip_sample=False,
        variance_type="fixed_large",
    )
    t, s = ours.pairs(schedule)[-1]
    x0, eps, xt = one_image(schedule, t)
    noise = torch.randn(
        SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    assert (t, s) == (100, 0) and (
        ours.step(schedule, xt, EPS.decode(schedule, eps, xt, t), t, s, noise) - x0
    ).abs().max() < 1e-9
    added = (
        other.step(
            eps, t - 1, xt, generator=torch.Generator().manual_seed(0)
        ).prev_sample
        - x0
    )
    torch.testing.assert_close(
        added, (1 - schedule.alpha_bar[100]).sqrt() * noise, rtol=1e-6, atol=1e-9
    )
    assert (1 - schedule.alpha_bar[100]).sqrt() > 0.32


def test_their_clipped_ddim_keeps_an_epsilon_that_does_not_fit():
    """Without `use_clipped_model_output` the pair (x̂_0 clipped, ε̂ as it was) no
    longer makes x_t. Re-derived, it does."""
    schedule, ours, t, s = SCHEDULES["linear"], DDIM(10), 600, 500
    xt, out = images(1, *SHAPE), 3 * images(2, *SHAPE)
    pred = clip_prediction(schedule, EPS.decode(schedule, out, xt, t), xt, t, (-1, 1))
    other = theirs(
        diffusers.DDIMScheduler,
        schedule,
        "trailing",
        10,
        prediction_type="epsilon",
        clip_sample=True,
    )
    kept, rederived = (
        other.step(out, t - 1, xt, use_clipped_model_output=use).prev_sample
        for use in (False, True)
    )
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    assert (
        abar_t.sqrt() * pred.x0 + (1 - abar_t).sqrt() * pred.eps - xt
    ).abs().max() < 1e-12
    assert (ours.step(schedule, xt, pred, t, s, None) - rederived).abs().max() < 1e-9
    their_eps = (kept - abar_s.sqrt() * pred.x0) / (1 - abar_s).sqrt()
    assert (
        abar_t.sqrt() * pred.x0 + (1 - abar_t).sqrt() * their_eps - xt
    ).abs().max() > 0.1


def test_their_walk_without_alpha_one_ends_with_noise_in_the_image():
    """`set_alpha_to_one=False` ends at their time 0, our 1: what comes back is x_1, not
    x_0."""
    schedule, ours = SCHEDULES["scaled_linear"], DDIM(10, spacing="leading")
    other = theirs(
        diffusers.DDIMScheduler,
        schedule,
        "leading",
        10,
        table=False,
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
    )
    t, s = ours.pairs(schedule)[-2][1], 0
    x0, eps, xt = one_image(schedule, t)
    assert (
        t == 1
        and (ours.step(schedule, xt, EPS.decode(schedule, eps, xt, t), t, s, None) - x0)
        .abs()
        .max()
        < 1e-9
    )
    left = other.step(eps, t - 1, xt).prev_sample - q_sample(schedule, x0, 1, eps)
    assert left.abs().max() < 1e-5 and (1 - schedule.alpha_bar[1]).sqrt() > 0.029


@pytest.mark.parametrize("kind", KINDS)
def test_their_encoding_depends_on_what_the_network_predicts(kind):
    """One and the same exact network, asked for ε, x_0 or v: ours answers the same.
    Theirs reads x_0 and v at the level of the image, for which they were not asked, and
    divides by 0 at first."""
    schedule, x = SCHEDULES["linear"], images(1, *SHAPE)
    means = torch.linspace(-1, 1, 16).reshape(1, *SHAPE[1:])
    exact = {
        name: GaussianMixtureOracle(schedule, [1.0], means, [0.25], param)
        for name, param in KINDS.items()
    }
    ours = {
        name: ddim_encode(Denoiser(exact[name], schedule, param), x, DDIM(10))
        for name, param in KINDS.items()
    }
    assert largest(ours[kind], ours["epsilon"]) < 1e-9
    other = theirs(
        diffusers.DDIMInverseScheduler,
        schedule,
        "trailing",
        10,
        prediction_type=kind,
        clip_sample=False,
    )
    got = their_encoding(other, exact[kind], x)
    if kind == "epsilon":
        assert largest(ours[kind], got) < 1e-9
    elif kind == "sample":
        assert not torch.isfinite(got).all()
    else:
        back = [
            (sample(Denoiser(exact["epsilon"], schedule), xT, DDIM(10)) - x)
            .abs()
            .max()
            .item()
            for xT in (ours[kind], got)
        ]
        assert torch.isfinite(got).all() and back[0] < back[1]


def test_zero_terminal_snr_is_the_same_schedule():
    "Their rescaling, and a v-prediction walk on it."
    ours = zero_terminal_snr(SCHEDULES["scaled_linear"])
    other = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        prediction_type="v_prediction",
        clip_sample=False,
    )
    np.testing.assert_allclose(
        other.alphas_cumprod.numpy(), ours.alpha_bar[1:].numpy(), rtol=1e-3, atol=1e-6
    )
    other.alphas_cumprod, other.final_alpha_cumprod = (
        ours.alpha_bar[1:],
        torch.tensor(1.0, dtype=torch.float64),
    )
    other.set_timesteps(20)
    x, noises = images(1, *SHAPE), images(2, 20, *SHAPE)
    assert (
        largest(
            our_walk(DDIM(20), ours, V, x, noises, False),
            their_ddim_walk(other, x, noises, 0.0),
        )
        < 1e-9
    )
