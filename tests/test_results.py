"Measured results say how they were made."

import json
import re

import pytest
from book import ROOT

RESULTS = sorted((ROOT / "results").glob("**/*.json"))
WEIGHTS = sorted((ROOT / "ddpm_lit" / "weights").glob("**/*.safetensors"))
JUDGES = sorted((ROOT / "ddpm_lit" / "judges").glob("**/*.safetensors"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.name)
def test_a_result_carries_its_origin(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    missing = {"command", "commit", "versions", "hardware", "date", "seed"} - set(
        record
    )
    assert not missing, f"{path.name} lacks {missing}"
    assert (
        re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?", record["commit"])
        and re.match(r"20\d\d-\d\d-\d\d", record["date"])
        and record["versions"].get("torch")
    )
    assert path.stat().st_size < 200_000


def test_weights_are_small_and_have_a_description():
    assert sum(p.stat().st_size for p in WEIGHTS + JUDGES) < 20_000_000
    assert not [p for p in WEIGHTS + JUDGES if not list(p.parent.glob("*.json"))]


def test_nothing_is_pickled():
    assert not [
        p
        for folder in ("ddpm_lit", "results", "tests", "nbs")
        for p in (ROOT / folder).rglob("*")
        if p.suffix in (".pt", ".pth", ".pkl", ".ckpt", ".npy", ".npz")
    ]


def measured_of(name: str) -> dict:
    """The report on a model that comes with the package: in a file of its own, or a
    stage of the benchmark that trained it."""
    own = ROOT / "results" / f"shipped-{name}.json"
    if own.is_file():
        return json.loads(own.read_text(encoding="utf-8"))
    stages = json.loads(
        (ROOT / "results" / f"{name}.json").read_text(encoding="utf-8")
    )["stages"]
    return stages["headline"] | (
        {"score": stages["score"]} if "score" in stages else {}
    )


@pytest.mark.parametrize(
    "card",
    sorted((ROOT / "ddpm_lit" / "weights").glob("*/README.md")),
    ids=lambda p: p.parent.name,
)
def test_the_figures_of_a_card_are_those_of_its_result_file(card):
    text, found = card.read_text(encoding="utf-8"), measured_of(card.parent.name)
    for word in ("Data and terms", "Recipe", "Cost", "Measured", "Limits"):
        assert f"**{word}" in text, word
    shown = [
        f"{found['distance']['frechet']:.3f}",
        f"{found['floor']['frechet']:.3f}",
        f"{found['agreement']:.1%}",
        f"{found['agreement_real']:.1%}",
        f"{found['bits']['total']:.3f} ± {found['bits']['error']:.3f}",
        f"{found['n']:,} samples",
    ]
    if "score" in found:
        shown.append(f"{found['score']['samples']:.1%}")
    missing = [figure for figure in shown if figure.replace("%", " %") not in text]
    assert not missing, f"{card} lacks {missing}"


@pytest.mark.parametrize(
    "card",
    sorted((ROOT / "ddpm_lit" / "judges").glob("*/README.md")),
    ids=lambda p: p.parent.name,
)
def test_the_figures_of_a_classifiers_card_are_those_of_its_facts(card):
    text, facts = (
        card.read_text(encoding="utf-8"),
        json.loads((card.parent / "config.json").read_text(encoding="utf-8")),
    )
    for word in ("Data and terms", "Recipe", "Cost", "Measured", "Limits"):
        assert f"**{word}" in text, word
    shown = [
        f"{facts['accuracy']:.1%}",
        f"{facts['trained_on']:,} training digits",
        f"{facts['tested_on']:,} held-out digits",
        f"epochs={facts['epochs']})",
        f"{4 * facts['width']} features",
    ]
    missing = [figure for figure in shown if figure.replace("%", " %") not in text]
    assert not missing, f"{card} lacks {missing}"


@pytest.mark.parametrize("kind, weights", [("weights", WEIGHTS), ("judges", JUDGES)])
def test_every_model_that_comes_with_the_package_has_a_card(kind, weights):
    assert weights and {p.parent for p in weights} == {
        p.parent for p in (ROOT / "ddpm_lit" / kind).glob("*/README.md")
    }
