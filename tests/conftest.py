"""What all tests share: a fixed seed, hypothesis without deadlines and without chance,
and one thread (the tensors are small, and threads that wait for each other cost
more than they give)."""

import os

# diffusers is an oracle here, nothing is fetched
os.environ.setdefault("HF_HUB_OFFLINE", "1")
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from mutations import court

settings.register_profile(
    "repository",
    deadline=None,
    derandomize=True,
    max_examples=30,
    database=None,
    phases=[Phase.explicit, Phase.generate]
    if "NO_SHRINK" in os.environ
    else list(Phase),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repository")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def clerk():
    "A process that has imported the heavy libraries and makes forks of itself."
    with court(1) as pool:
        yield pool


def pytest_collection_modifyitems(items):
    """The pages and the mutations take longest: with several workers (`-n 2 --dist
    loadfile`) they should begin first."""
    items.sort(
        key=lambda item: (
            item.path.name not in ("test_notebooks.py", "test_mutations.py")
        )
    )
