"""What benchmarks/mutants.py found: CONTRIBUTING.md says it, nearly all is noticed, and
nothing survives without a reason."""

import json
import re

import pytest
from book import ROOT

MODULES = json.loads((ROOT / "results/mutants.json").read_text("utf-8"))["modules"]
REASONS = json.loads((ROOT / "benchmarks/mutants-equivalent.json").read_text("utf-8"))


def total(module: str, what: str) -> int:
    return sum(
        len(found[what]) if what == "survived" else found[what]
        for found in MODULES[module].values()
    )


def test_the_table_in_contributing_is_what_was_found():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    head = r"\| module \| mistakes \| noticed by a test \| by the page alone .*\n.*\n"
    (table,) = re.findall(head + r"((?:\|.*\n)+)", text)
    want = []
    for module in MODULES:
        counts = [total(module, k) for k in ("mistakes", "tests", "page", "survived")]
        share = 100 * (1 - counts[-1] / counts[0])
        cells = [f"`{module}`", *map(str, counts), f"{share:.1f} %"]
        want.append(f"| {' | '.join(cells)} |")
    assert table.splitlines() == want


@pytest.mark.parametrize("module", MODULES)
def test_nearly_all_mistakes_are_noticed(module):
    "And the rest, at most 7 of 100, changes nothing: see the reasons below."
    for name, found in MODULES[module].items():
        judged = found["tests"] + found["page"] + len(found["survived"])
        assert judged == found["mistakes"], name
    assert total(module, "survived") <= 0.07 * total(module, "mistakes")


def test_who_survives_has_a_reason_and_no_reason_is_left_over():
    survived = [
        name
        for functions in MODULES.values()
        for found in functions.values()
        for name in found["survived"]
    ]
    assert sorted(survived) == sorted(REASONS)
    for name, reason in REASONS.items():
        assert len(reason) > 30 and reason.endswith("."), name
