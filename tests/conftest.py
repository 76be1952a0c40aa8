"What all tests share: a fixed seed, two threads, hypothesis without deadlines and without chance."
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # diffusers is an oracle here, nothing is fetched
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"): os.environ.setdefault(variable, "2")

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

settings.register_profile("repository", deadline=None, derandomize=True, max_examples=30, database=None,
                          phases=[Phase.explicit, Phase.generate] if "NO_SHRINK" in os.environ else list(Phase),
                          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.load_profile("repository")
torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
