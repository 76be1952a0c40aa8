"The tests are tested: mistakes made on purpose must be noticed (see mutations.py)."
import pytest
from book import ROOT
from mutations import MUTATIONS, PAGE, QUICK, caught, total

CAUGHT = []


@pytest.mark.parametrize("name", QUICK)
def test_quick_mutation(name):
    mutation = next(m for m in MUTATIONS if m.name == name)
    tests = tuple(judge for judge in mutation.judges if judge != PAGE)  # they pass without the mutation: this suite runs them
    assert caught(mutation, tests, check_judges=False), f"nobody noticed: {name}"


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.module}: {m.name}")
def test_mutation(mutation):
    assert caught(mutation), f"one of {mutation.judges} did not notice"
    CAUGHT.append(mutation.name)


@pytest.mark.slow
def test_count(capsys):
    with capsys.disabled(): print(f"\n{len(CAUGHT)} of {len(MUTATIONS)} mutations caught")
    assert len(CAUGHT) == len(MUTATIONS)


def test_the_count_is_written_down():
    assert total() in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), f"CONTRIBUTING.md should say '{total()}'"
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)
