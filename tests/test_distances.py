"""Distances between sets of features: against their formulas, with two sets of
different sizes, a set against itself, and without the package that computes them."""

import sys

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from strategies import images

from ddpm_lit.distances import set_distances

A, B = images(1, 60, 4) @ images(2, 4, 4), (images(3, 60, 4) + 0.3) @ images(4, 4, 4)


def frechet(a, b):
    a, b = a.double().numpy(), b.double().numpy()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        np.cov(a.T) + np.cov(b.T) - 2 * sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    )


def kernel(a, b):
    "The unbiased estimate, pair by pair."
    a, b = a.double().numpy(), b.double().numpy()

    def mean(x, y, among):
        return np.mean(
            [
                (x[i] @ y[j] / x.shape[1] + 1) ** 3
                for i in range(len(x))
                for j in range(len(y))
                if among(i, j)
            ]
        )

    return (
        mean(a, a, lambda i, j: i != j)
        + mean(b, b, lambda i, j: i != j)
        - 2 * mean(a, b, lambda i, j: True)
    )


@pytest.mark.parametrize(
    "a, b",
    [(A, B), (B, A), (A.float() + 5, B.float() + 5)],
    ids=["", "exchanged", "float32"],
)
def test_distances_are_their_formulas(a, b):
    found = set_distances(a, b)
    assert found.frechet == pytest.approx(
        frechet(a, b), rel=1e-6
    ) and found.kernel == pytest.approx(kernel(a, b), rel=1e-9)
    assert found.scatter < 1e-9 * found.kernel, "all subsets are the whole"


def test_sets_of_different_sizes():
    found = set_distances(A[:40], B)
    assert (found.n, found.m) == (40, 60) and found.frechet == pytest.approx(
        frechet(A[:40], B), rel=1e-6
    ) == set_distances(B, A[:40]).frechet
    assert (
        found.scatter > 0 and abs(found.kernel - kernel(A[:40], B)) < found.scatter
    ), "100 subsets of 40 of the 60, each with all of the others"


def test_a_set_against_itself():
    """Each picture has its twin in the other set, and the pairs of twins stand only
    across: the kernel distance is below zero by 2/N times what such a pair has above
    others."""
    found, likeness = set_distances(A, A), (A @ A.T / 4 + 1) ** 3
    twins, others = (
        likeness.diagonal().mean(),
        (likeness.sum() - likeness.trace()) / (60 * 59),
    )
    assert (
        0 <= found.frechet < 1e-9 * frechet(A, B)
        and set_distances(A[:3], A[:3]).frechet >= 0
    ), "of three pictures, rounding would make it negative"
    assert found.kernel == pytest.approx(2 / 60 * (others - twins).item(), rel=1e-9)


def test_distances_are_a_function_of_their_seed():
    first = set_distances(A[:40], B)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    assert set_distances(A[:40], B) == first and torch.equal(
        torch.random.get_rng_state(), before
    )
    other = set_distances(A[:40], B, seed=1)
    assert other.kernel != first.kernel and other.frechet == first.frechet


@pytest.mark.parametrize(
    "mistake, words",
    [
        (lambda: set_distances(torch.zeros(3), torch.zeros(3)), "a b (3,)"),
        (
            lambda: set_distances(torch.zeros(3, 2), torch.zeros(3, 4)),
            "a b (3, 2) (3, 4)",
        ),
        (lambda: set_distances(torch.zeros(1, 2), torch.zeros(3, 2)), "a b (1, 2)"),
        (lambda: set_distances(torch.zeros(3, 2), torch.zeros(1, 2)), "a b (1, 2)"),
    ],
)
def test_mistakes_are_refused(mistake, words):
    with pytest.raises(ValueError) as refusal:
        mistake()
    assert all(word in str(refusal.value) for word in words.split()), str(refusal.value)


def test_without_torchmetrics_there_is_a_sentence(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torchmetrics.")] + [
        "torchmetrics"
    ]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ModuleNotFoundError, match=r"need torchmetrics: pip install 'ddpm_lit\[eval\]'$"
    ):
        set_distances(A, B)
