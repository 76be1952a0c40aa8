"""The schedule: a validated value, index 0 is clean data, and the constants that are
published."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import betas, schedules

from ddpm_lit import NoiseSchedule, cosine_schedule, linear_schedule
from ddpm_lit import scaled_linear_schedule, sigmoid_schedule, zero_terminal_snr
from ddpm_lit.schedule import AlphaBarTable, at_least_float32, check_times
from ddpm_lit.schedule import expand, float64

MAKERS = [linear_schedule, scaled_linear_schedule, cosine_schedule, sigmoid_schedule]


@given(schedules(ends_at_zero=True))
def test_shapes_and_index_zero(schedule):
    for table in (schedule.alpha_bar, schedule.alpha, schedule.beta, schedule.snr):
        assert table.shape == (schedule.T + 1,) and table.dtype == torch.float64
    assert (
        schedule.alpha_bar[0] == 1
        and schedule.alpha[0] == 1
        and schedule.beta[0] == 0
        and schedule.snr[0] == torch.inf
    )
    assert (schedule.alpha_bar.diff() < 0).all() and (schedule.snr.diff() < 0).all()


@given(st.lists(betas, min_size=1, max_size=30))
def test_betas_come_back(values):
    values = torch.tensor(values, dtype=torch.float64)
    schedule = NoiseSchedule.from_betas(values)
    torch.testing.assert_close(schedule.beta[1:], values, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        schedule.alpha + schedule.beta,
        torch.ones(len(values) + 1, dtype=torch.float64),
        rtol=0,
        atol=1e-14,
    )
    torch.testing.assert_close(
        schedule.alpha.cumprod(0), schedule.alpha_bar, rtol=1e-12, atol=0
    )


@given(schedules(), st.data())
def test_at_looks_up_one_time_for_each_image(schedule, data):
    t = data.draw(st.lists(st.integers(0, schedule.T), min_size=1, max_size=5))
    assert torch.equal(
        schedule.at(torch.tensor(t)), torch.stack([schedule.at(i) for i in t])
    )
    assert (
        schedule.at(t[0]).shape == () and schedule.at(t[0]) == schedule.alpha_bar[t[0]]
    )


# published or recomputed figures, to the digits given
@pytest.mark.parametrize(
    "schedule, abar_T, root, snr",
    [
        (linear_schedule(), 4.036e-5, 0.0064, 4.04e-5),
        (linear_schedule(400), 1.75e-2, 0.132, 1.8e-2),
        (linear_schedule(300), 0.048, 0.219, 0.050),
        (linear_schedule(200), 0.132, 0.364, 0.152),
        (linear_schedule(100), 0.364, 0.603, 0.571),
        (linear_schedule(50), 0.603, 0.777, 1.52),
        (linear_schedule(beta_end=0.01), 6.3e-3, 0.079, 6.3e-3),
        (scaled_linear_schedule(), 4.66e-3, 0.068, 4.68e-3),
        (cosine_schedule(), 2.4e-9, 5e-5, 2.4e-9),
    ],
    ids=[
        "linear",
        "linear-400",
        "linear-300",
        "linear-200",
        "linear-100",
        "linear-50",
        "linear-0.01",
        "scaled-linear",
        "cosine",
    ],
)
def test_published_constants(schedule, abar_T, root, snr):
    def digits(x, like):  # rounded as the published figure is
        places = len(f"{like:g}".split("e")[0].replace(".", "").lstrip("0"))
        return float(f"{x:.{places - 1}e}")

    assert digits(schedule.alpha_bar[-1].item(), abar_T) == pytest.approx(
        abar_T, rel=1e-9
    )
    assert schedule.alpha_bar[-1].sqrt().item() == pytest.approx(root, rel=0.03)
    assert schedule.snr[-1].item() == pytest.approx(snr, rel=0.03)


def test_published_posterior_shares():
    "β̃_t/β_t of the linear schedule."
    abar, beta = linear_schedule().alpha_bar, linear_schedule().beta
    share = [((1 - abar[t - 1]) / (1 - abar[t])).item() for t in (1, 2, 10, 100)]
    assert share == pytest.approx([0, 0.455, 0.853, 0.982], abs=6e-4) and beta[
        1
    ] == pytest.approx(1e-4, rel=1e-11)


def test_schedules_by_their_definitions():
    "Each from its paper, written once more in plain Python."
    T = 1000
    for t in (1, 2, 500, 999, 1000):
        assert linear_schedule().beta[t].item() == pytest.approx(
            1e-4 + (0.02 - 1e-4) * (t - 1) / (T - 1), rel=1e-10
        )
        assert scaled_linear_schedule().beta[t].item() == pytest.approx(
            (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * (t - 1) / (T - 1)) ** 2,
            rel=1e-10,
        )

        def f(u):
            return math.cos((u / T + 0.008) / 1.008 * math.pi / 2) ** 2

        assert cosine_schedule().beta[t].item() == pytest.approx(
            min(1 - f(t) / f(t - 1), 0.999), rel=1e-9
        )

        def g(u):
            return 1 / (1 + math.exp(3 - 6 * u / T))

        if t < T:
            assert sigmoid_schedule().alpha_bar[t].item() == pytest.approx(
                (g(T) - g(t)) / (g(T) - g(0)), rel=1e-9
            )


@pytest.mark.parametrize("make", MAKERS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("T", [1, 2, 5, 37, 1000])
def test_every_maker_for_every_T(make, T):
    schedule = make(T)
    assert (
        schedule.T == T
        and schedule.alpha_bar.shape == (T + 1,)
        and torch.isfinite(schedule.alpha_bar).all()
    )


@given(schedules(max_T=30))
def test_zero_terminal_snr(schedule):
    if schedule.T < 2:
        return
    rescaled = zero_terminal_snr(schedule)
    assert (
        rescaled.alpha_bar[-1] == 0
        and rescaled.snr[-1] == 0
        and rescaled.beta[-1] == 1
        and rescaled.T == schedule.T
    )
    assert rescaled.alpha_bar[0] == 1 and rescaled.alpha_bar[1] == schedule.alpha_bar[1]


def test_zero_terminal_snr_is_algorithm_1():
    "Lin et al.: √ᾱ shifted by −√ᾱ_T and scaled by √ᾱ_1/(√ᾱ_1 − √ᾱ_T)."
    root = linear_schedule().alpha_bar.sqrt()
    want = ((root[1:] - root[-1]) * root[1] / (root[1] - root[-1])) ** 2
    torch.testing.assert_close(
        zero_terminal_snr(linear_schedule()).alpha_bar[1:], want, rtol=1e-12, atol=1e-18
    )


@pytest.mark.parametrize(
    "make, names",
    [
        (lambda: NoiseSchedule.from_betas([0.1, -0.1]), ["beta", "-0.1", "(0, 1)"]),
        (lambda: NoiseSchedule.from_betas([1.0, 0.1]), ["beta", "1", "(0, 1)"]),
        (lambda: NoiseSchedule.from_betas([0.1, 1.5]), ["beta", "1.5", "(0, 1)"]),
        (lambda: NoiseSchedule.from_betas([0.1, 0.0]), ["beta", "0", "(0, 1)"]),
        (lambda: NoiseSchedule.from_betas([0.1, math.nan]), ["beta", "nan", "(0, 1)"]),
        (lambda: NoiseSchedule.from_betas([]), ["betas", "(T,)", "(0,)"]),
        (lambda: NoiseSchedule.from_betas([[0.1]]), ["betas", "(T,)", "(1, 1)"]),
        (lambda: NoiseSchedule([0.9, 0.5]), ["alpha_bar[0]", "1", "0.9"]),
        (lambda: NoiseSchedule([1.0]), ["alpha_bar", "(T+1,)", "(1,)"]),
        (
            lambda: NoiseSchedule([1.0, 0.5, 0.5]),
            ["alpha_bar", "decreasing", "alpha_bar[2]"],
        ),
        (lambda: NoiseSchedule([1.0, 0.5, math.nan]), ["alpha_bar", "finite"]),
        (lambda: NoiseSchedule([1.0, 0.5, 1e-13, 0.0]), ["alpha_bar", "1e-12"]),
        (lambda: NoiseSchedule([1.0, 0.5, -0.1]), ["alpha_bar"]),
        (lambda: linear_schedule(0), ["T", ">= 1", "0"]),
        (lambda: cosine_schedule(0), ["T", ">= 1", "0"]),
        (lambda: linear_schedule(10, 0.1, 1.2), ["beta", "(0, 1)", "1.07"]),
        (lambda: zero_terminal_snr(linear_schedule(1)), ["T", "2", "1"]),
        (lambda: linear_schedule(10).at(11), ["t", "0..10", "11"]),
        (lambda: linear_schedule(10).at(-1), ["t", "0..10", "-1"]),
        (lambda: linear_schedule(10).at(torch.tensor([1, 12])), ["t", "0..10", "12"]),
        (
            lambda: linear_schedule(10).at(torch.tensor([1.0])),
            ["t", "int64", "float32"],
        ),
        (lambda: linear_schedule(10).at(torch.tensor([[1]])), ["t", "(B,)", "(1, 1)"]),
        (lambda: linear_schedule(10).at(1.5), ["t", "int64", "float"]),
    ],
)
def test_mistakes_are_refused_by_name_value_and_rule(make, names):
    with pytest.raises(ValueError) as refusal:
        make()
    message = str(refusal.value)
    assert "\n" not in message and all(name in message for name in names), message


def test_a_schedule_is_a_frozen_value():
    source = torch.tensor([1.0, 0.5], dtype=torch.float64)
    schedule = NoiseSchedule(source)
    source[1] = 0.9
    assert schedule.alpha_bar[1] == 0.5
    with pytest.raises(AttributeError):
        schedule.alpha_bar = source


def test_a_table_stays_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        schedule = NoiseSchedule([1.0, 0.5])
    assert schedule.alpha_bar.device.type == "cpu"


def test_each_argument_of_a_schedule_matters():
    "At other values than the defaults, written once more in numpy."
    cosine = cosine_schedule(40, s=0.1, max_beta=0.7)
    f = np.cos((np.arange(41) / 40 + 0.1) / 1.1 * np.pi / 2) ** 2
    want = np.minimum(1 - f[1:] / f[:-1], 0.7)
    assert cosine.beta[1:].numpy() == pytest.approx(want, rel=1e-9)
    assert (want == 0.7).sum() > 1
    root = np.linspace(0.01**0.5, 0.3**0.5, 7)
    scaled = scaled_linear_schedule(7, 0.01, 0.3)
    assert scaled.beta[1:].numpy() == pytest.approx(root**2, rel=1e-12)
    linear = linear_schedule(7, 0.01, 0.3)
    assert linear.beta[1:].numpy() == pytest.approx(
        np.linspace(0.01, 0.3, 7), rel=1e-12
    )
    g = 1 / (1 + np.exp(-(np.linspace(0, 1, 8) * 6 - 2) / 0.7))
    sigmoid = sigmoid_schedule(7, start=-2, end=4, tau=0.7).alpha_bar
    want = (g[-1] - g[:-1]) / (g[-1] - g[0])
    assert sigmoid[:-1].numpy() == pytest.approx(want, rel=1e-12)
    assert sigmoid[-1] == 1e-9


def test_numpys_integers_are_integers_and_truth_values_are_none():
    for n in (np.int64(7), np.int32(7), np.uint8(7)):
        for make in MAKERS:
            assert torch.equal(make(n).alpha_bar, make(7).alpha_bar)
        assert linear_schedule().at(n) == linear_schedule().alpha_bar[7]
    for wrong in (True, np.bool_(True), 7.0, np.float64(7), np.array([7])):
        with pytest.raises(ValueError, match="be an int"):
            linear_schedule().at(wrong)
        with pytest.raises(ValueError, match="be an integer"):
            linear_schedule(wrong)


def test_a_schedule_has_a_thousand_steps_and_tells_its_ends():
    for make in MAKERS:
        assert make().T == 1000
    told = "NoiseSchedule(T=1000, ᾱ_1=0.9999, ᾱ_T=4.036e-05)"
    assert repr(linear_schedule()) == told
    assert repr(NoiseSchedule([1, 0.5])) == "NoiseSchedule(T=1, ᾱ_1=0.5, ᾱ_T=0.5)"


@pytest.mark.parametrize(
    "make, names",
    [
        (lambda: scaled_linear_schedule(1, 0.0), ["beta_start and beta_end", "0 and"]),
        (lambda: scaled_linear_schedule(1, 1.0), ["beta_start and beta_end", "1 and"]),
        (lambda: scaled_linear_schedule(3, -0.1), ["beta_start and beta_end", "-0.1"]),
        (lambda: scaled_linear_schedule(1, 0.1, 0.0), ["beta_start and beta", "and 0"]),
        (
            lambda: scaled_linear_schedule(1, 0.1, 1.1),
            ["beta_start and bet", "and 1.1"],
        ),
        (lambda: cosine_schedule(10, -0.1), ["s must be >= 0", "-0.1"]),
        (lambda: sigmoid_schedule(10, 3, 3), ["start must be below end", "start=3"]),
        (lambda: sigmoid_schedule(10, 4, 3), ["start must be below end", "end=3"]),
        (lambda: sigmoid_schedule(10, tau=0), ["tau positive", "tau=0"]),
        (lambda: sigmoid_schedule(10, tau=-1), ["tau positive", "tau=-1"]),
        (lambda: sigmoid_schedule(0), ["T must be an integer >= 1", "0"]),
        (lambda: scaled_linear_schedule(0), ["T must be an integer >= 1", "0"]),
        (lambda: NoiseSchedule([[1.0, 0.5]]), ["alpha_bar", "(T+1,)", "(1, 2)"]),
        (lambda: NoiseSchedule([1.0, 0.5, 1e-12, 0.0]), ["alpha_bar", "1e-12"]),
        (lambda: NoiseSchedule([1.0, 0.5, 0.6, 0.1]), ["alpha_bar[2] is not below"]),
        (lambda: NoiseSchedule([1.0, 0.5, -math.inf]), ["alpha_bar must be finite"]),
        (lambda: NoiseSchedule.from_betas([0.1, 1.0, 0.2]), ["beta_2 = 1"]),
        (lambda: NoiseSchedule.from_betas(0.1), ["betas", "(T,)", "()"]),
        (lambda: check_times(linear_schedule(9), 0, low=1), ["t", "1..9", "got 0"]),
        (
            lambda: check_times(linear_schedule(9), torch.tensor([0, 3]), 1),
            ["t", "1..9", "got 0"],
        ),
        (
            lambda: check_times(linear_schedule(9), torch.tensor([5, 10, 3])),
            ["t", "0..9", "got 10"],
        ),
        (
            lambda: check_times(linear_schedule(9), torch.tensor([1, 10]), 1),
            ["t", "1..9", "got 10"],
        ),
        (lambda: linear_schedule(9).at(torch.tensor(3)), ["t", "(B,)", "()"]),
    ],
)
def test_more_mistakes_are_refused_by_name_value_and_rule(make, names):
    with pytest.raises(ValueError) as refusal:
        make()
    message = str(refusal.value)
    assert "\n" not in message and all(name in message for name in names), message


def test_what_lies_on_a_border_is_taken():
    assert scaled_linear_schedule(3, 0.1, 1.0).beta[-1] == 1
    assert cosine_schedule(9, 0.0).T == 9
    assert zero_terminal_snr(linear_schedule(2)).alpha_bar[-1] == 0
    assert NoiseSchedule([1.0, 2e-12, 1e-13]).T == 2
    assert NoiseSchedule.from_betas([1.0]).alpha_bar.tolist() == [1, 0]
    schedule = linear_schedule(9)
    for t in (torch.tensor([0, 9]), torch.tensor([], dtype=torch.int64)):
        assert schedule.at(t).shape == t.shape
    check_times(schedule, 9, 1)
    check_times(schedule, torch.tensor([1, 9]), 1)
    check_times(schedule, torch.tensor([], dtype=torch.int64), 1)
    check_times(schedule, torch.tensor([99], device="meta"))  # nobody can know


def test_the_table_lies_where_it_is_asked_for_and_is_copied_once():
    schedule = linear_schedule(9)
    t = torch.tensor([3, 4], device="meta")
    assert schedule.at(t).device.type == "meta" and schedule.at(3).device.type == "cpu"
    here = schedule.at(torch.tensor([3, 4]))
    assert here.tolist() == schedule.alpha_bar[3:5].tolist()
    first = schedule._on[t.device]
    schedule.at(t)
    assert schedule._on[t.device] is first
    assert "_on" not in repr(AlphaBarTable([1.0, 0.5]))  # nor is it an argument
    with pytest.raises(TypeError):
        AlphaBarTable([1.0, 0.5], {})


def test_values_become_float64_copies_on_the_cpu():
    leaf = torch.tensor([0.1, 0.2], requires_grad=True)
    assert not float64(leaf).requires_grad and float64(leaf).dtype == torch.float64
    source = torch.tensor([0.1, 0.2], dtype=torch.float64)
    assert float64(source) is not source
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float64(source).data_ptr() != source.data_ptr()
    for values in ([0.1, 0.2], (0.1, 0.2), np.array([0.1, 0.2])):
        assert torch.equal(float64(values), source)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_coefficients_are_made_ready_for_images(dtype):
    x = torch.zeros(2, 3, 4, 5, dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert at_least_float32(x).dtype == wide
    c = torch.tensor([0.1, 0.2], dtype=torch.float64)
    assert expand(c[0], x) is not c and expand(c[0], x).shape == ()
    assert expand(c, x).shape == (2, 1, 1, 1) and expand(c, x).dtype == wide
    assert expand(c, x).flatten().tolist() == c.to(wide).tolist()
    assert expand(c[:, None].expand(2, 3), x).shape == (2, 3, 1, 1)
    assert expand(c, x.to("meta")).device.type == "meta"
    assert expand(c, torch.zeros(2)).shape == (2,)
