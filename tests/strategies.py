"Random schedules, strides and images for the property tests."

import torch
from hypothesis import strategies as st

from ddpm_lit import NoiseSchedule

betas = st.floats(1e-4, 0.5, allow_nan=False, width=64)


@st.composite
def schedules(draw, max_T: int = 50, ends_at_zero: bool = False):
    """A valid schedule with T in 1..max_T, and ᾱ above 1e-12 by far; with
    `ends_at_zero` sometimes ᾱ_T = 0."""
    steps = draw(st.lists(betas, min_size=1, max_size=max_T))
    kept, values = 1.0, []
    for beta in steps:
        if kept * (1 - beta) < 1e-8:
            break
        kept *= 1 - beta
        values.append(beta)
    if ends_at_zero and len(values) > 1 and draw(st.booleans()):
        values[-1] = 1.0
    return NoiseSchedule.from_betas(torch.tensor(values, dtype=torch.float64))


@st.composite
def strides(draw, **kwargs):
    "A schedule with 0 <= s < t <= T."
    schedule = draw(schedules(**kwargs))
    t = draw(st.integers(1, schedule.T))
    return schedule, draw(st.integers(0, t - 1)), t


def images(seed: int, *shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


seeds = st.integers(0, 10**6)
