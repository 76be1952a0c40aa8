"""The bound of many images is the mean of their terms: with its error, whatever the
batch, and with all that the run and the caller say."""

import math
import statistics
import warnings
from dataclasses import replace

import pytest
import torch
from strategies import images

from ddpm_lit import EPS, X0, Denoiser, DynamicThreshold, GaussianMixtureOracle
from ddpm_lit import linear_schedule, vlb_terms
from ddpm_lit.likelihood import Bound, bits_per_dim
from ddpm_lit.runs import Run
from ddpm_lit.forward import keyed_generator


class Blind:
    "Always says x̂_0 = 5, and remembers what it was told."

    def __init__(self):
        self.seen = []

    def __call__(self, x, t, *y):
        self.seen.append((x, t, *y))
        return torch.full_like(x, 5.0)


SCHEDULE = linear_schedule(30, 1e-3, 0.3)
ORACLE = GaussianMixtureOracle(
    SCHEDULE,
    [1.0, 3.0],
    torch.tensor([0.5, -0.6]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2),
    [0.1, 0.02],
)
RUN = Run(ORACLE, SCHEDULE, EPS, None)
DATA = ORACLE.sample(7, torch.Generator().manual_seed(0))


def blind(clip=None) -> Run:
    return Run(Blind(), SCHEDULE, X0, clip)


def numbers(found: Bound) -> list:
    return [
        found.n,
        found.prior,
        found.kl,
        found.reconstruction,
        found.error,
        found.total,
        *found.curve.tolist(),
    ]


@pytest.mark.parametrize(
    "y", [None, torch.tensor([0, 1, 1, 1, 0, 2, 1])], ids=["", "labels"]
)
def test_the_bound_is_the_mean_of_the_terms(y):
    terms = vlb_terms(
        Denoiser(ORACLE, SCHEDULE),
        DATA,
        y=y,
        levels=None,
        generator=[keyed_generator(3, 5, i) for i in range(7)],
    )
    each = terms.total.tolist()
    want = [
        7,
        terms.prior.mean(),
        terms.kl.sum(1).mean(),
        terms.reconstruction.mean(),
        statistics.stdev(each) / 7**0.5,
        statistics.fmean(each),
        *terms.kl.mean(0),
    ]
    found = bits_per_dim(RUN, DATA, None, y=y, seed=3)
    assert numbers(found) == pytest.approx([float(x) for x in want], rel=1e-12)
    assert (
        found.curve.shape == (SCHEDULE.T - 1,)
        and found.curve.dtype == torch.float64
        and found.curve.sum().item() == pytest.approx(found.kl, rel=1e-12)
    )


def test_the_batch_does_not_matter():
    want, passed = numbers(bits_per_dim(RUN, DATA, None)), []

    def watch(batches):
        for batch in batches:
            passed.append(len(batch))
            yield batch

    for batch in (1, 3, 7):
        assert numbers(
            bits_per_dim(RUN, DATA, None, batch=batch, watch=watch)
        ) == pytest.approx(want, rel=1e-12)
    assert passed == [1] * 7 + [3, 3, 1] + [7]
    assert numbers(bits_per_dim(RUN, DATA, None, seed=1))[2] != pytest.approx(
        want[2], rel=1e-6
    )


@pytest.mark.parametrize(
    "y", [torch.arange(7), images(0, 7, 3)], ids=["labels", "contexts"]
)
def test_each_image_keeps_its_label(y):
    run = blind()
    bits_per_dim(run, DATA, None, y=y, batch=3)
    assert len(run.model.seen) == 3 * SCHEDULE.T and torch.equal(
        torch.cat([run.model.seen[i * SCHEDULE.T][2] for i in range(3)]), y
    )
    run.model.seen.clear()
    bits_per_dim(run, DATA, None)
    assert {len(seen) for seen in run.model.seen} == {2}, (
        "without labels the model is called without"
    )


@pytest.mark.parametrize(
    "clip, says",
    [((-1.0, 1.0), 1), ((-3.0, 2.0), 2), (None, 5), (DynamicThreshold(0.9), 5)],
    ids=str,
)
def test_a_range_clips_and_a_threshold_does_not(clip, says):
    "L_{t−1} = ½ (SNR(t−1) − SNR(t)) ‖x_0 − x̂_0‖² shows which x̂_0 was meant."
    snr, error = SCHEDULE.snr, (DATA - says).square().mean()
    torch.testing.assert_close(
        bits_per_dim(blind(clip), DATA, None).curve,
        0.5 * (snr[1:-1] - snr[2:]) * error / math.log(2),
        rtol=1e-8,
        atol=1e-12,
    )


def test_the_network_stays_where_it_is():
    """The values of the meta device are missing, and only the mean at the end asks for
    them."""
    seen = []

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2, 2))

        def forward(self, x, t):
            seen.append({x.device.type, t.device.type, self.weight.device.type})
            return x * self.weight

    run = Run(Net(), SCHEDULE, X0, (-1, 1))
    with pytest.raises(NotImplementedError, match="meta"):
        bits_per_dim(run, DATA.float(), None, batch=4, device="meta")
    assert seen == [{"meta"}] * 2 * SCHEDULE.T and run.model.weight.device.type == "cpu"


def test_levels_are_counted_or_refused():
    two = DATA.sign()
    want = vlb_terms(
        Denoiser(Blind(), SCHEDULE, X0, clip=(-1, 1)),
        two,
        levels=2,
        generator=[keyed_generator(0, 5, i) for i in range(7)],
    )
    assert bits_per_dim(blind((-1, 1)), two, 2).reconstruction == pytest.approx(
        want.reconstruction.mean().item(), rel=1e-12
    )
    with pytest.raises(ValueError, match="levels=17"):
        bits_per_dim(RUN, DATA.clamp(-1, 1), 17)
    with pytest.raises(ValueError, match="levels=256"):
        bits_per_dim(RUN, DATA.clamp(-1, 1))


def test_one_image_has_no_error_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = bits_per_dim(RUN, DATA[:1], None)
    assert (
        found.n == 1
        and math.isnan(found.error)
        and found.total == pytest.approx(found.prior + found.kl + found.reconstruction)
        and math.isfinite(found.total)
    )


def test_a_bound_in_words():
    found = Bound(100, 0.00012, 1.5, 0.75, 0.0625, torch.zeros(9))
    assert (
        found.total == 2.25012 and replace(found, error=math.nan).total == found.total
    )
    assert str(found) == (
        "2.250 ± 0.062 bits per dimension on 100 images: L_T 0.00012, sum of "
        "L_(t-1) 1.500, L_0 0.750"
    )
