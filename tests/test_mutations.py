"The tests are tested: mistakes made on purpose must be noticed (see mutations.py)."

import os

import pytest
from book import ROOT
from mutations import (
    MUTATIONS,
    PAGE,
    QUICK,
    by_module,
    court,
    seen_by_page,
    seen_by_test,
    total,
)

CAUGHT = []


@pytest.mark.parametrize("name", QUICK)
def test_quick_mutation(name, clerk):
    mutation = next(m for m in MUTATIONS if m.name == name)
    owner = next(judge for judge in mutation.judges if judge != PAGE)
    seen = clerk.submit(seen_by_test, mutation, owner, known=True).result()
    assert seen, f"nobody noticed: {name}"


@pytest.fixture(scope="module")
def verdicts(request):
    """The chosen mutations before their owners, as many at a time as there are
    processors: pages with all their mutations, and test files with one."""
    chosen = [
        item.callspec.params["mutation"]
        for item in request.session.items
        if "verdicts" in item.fixturenames
    ]
    pool, asked = court(os.cpu_count() or 1), {}
    of_pages = by_module(m for m in chosen if m.judges[0] == PAGE)
    for mutations in sorted(of_pages.values(), key=len, reverse=True):
        answer = pool.submit(seen_by_page, mutations)
        asked |= {m.name: answer for m in mutations}
    for m in chosen:
        if m.judges[0] != PAGE:
            asked[m.name] = pool.submit(seen_by_test, m, m.judges[0])
    yield asked
    pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.module}: {m.name}")
def test_mutation(mutation, verdicts):
    seen = verdicts[mutation.name].result()
    if isinstance(seen, dict):
        seen = seen[mutation.name]
    assert seen, f"{mutation.judges[0]} did not notice"
    CAUGHT.append(mutation.name)


@pytest.mark.slow
def test_count(capsys):
    with capsys.disabled():
        print(f"\n{len(CAUGHT)} of {len(MUTATIONS)} mutations caught")
    assert len(CAUGHT) == len(MUTATIONS)


def test_the_number_of_mutations_is_written_down():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"**{total()}**" in text, f"CONTRIBUTING.md should say '**{total()}**'"


def test_mutations_have_names_of_their_own():
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)
    assert set(QUICK) <= {m.name for m in MUTATIONS}
