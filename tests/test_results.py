"Measured results say how they were made."
import json
import re

import pytest
from book import ROOT

RESULTS = sorted((ROOT / "results").glob("**/*.json"))
WEIGHTS = sorted((ROOT / "ddpm_lit" / "weights").glob("**/*.safetensors"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.name)
def test_a_result_carries_its_origin(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    missing = {"command", "commit", "versions", "hardware", "date", "seed"} - set(record)
    assert not missing, f"{path.name} lacks {missing}"
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", record["commit"]) and re.match(r"20\d\d-\d\d-\d\d", record["date"]) and record["versions"].get("torch")
    assert path.stat().st_size < 200_000


def test_weights_are_small_and_have_a_description():
    assert sum(p.stat().st_size for p in WEIGHTS) < 20_000_000
    assert not [p for p in WEIGHTS if not list(p.parent.glob("*.json"))]


def test_nothing_is_pickled():
    assert not [p for folder in ("ddpm_lit", "results", "tests", "nbs") for p in (ROOT / folder).rglob("*") if p.suffix in (".pt", ".pth", ".pkl", ".ckpt", ".npy", ".npz")]
