"The tests are tested: mistakes made on purpose must be noticed (see mutations.py)."

import os

import pytest
from book import ROOT
from mutations import MUTATIONS, PAGE, QUICK, case, caught, court, innocent, total

CAUGHT = []


@pytest.fixture(scope="module")
def clerk():
    with court(1) as pool:
        yield pool


@pytest.mark.parametrize("name", QUICK)
def test_quick_mutation(name, clerk):
    mutation = next(m for m in MUTATIONS if m.name == name)
    # it passes without the mutation: this suite runs it
    owner = next(judge for judge in mutation.judges if judge != PAGE)
    assert clerk.submit(caught, mutation, (owner,), check_judges=False).result(), (
        f"nobody noticed: {name}"
    )


@pytest.fixture(scope="module")
def verdicts(request):
    """The owners of the chosen mutations before the package as it is, then the
    mutations before their owners, as many at a time as there are processors."""
    chosen = [
        item.callspec.params["mutation"]
        for item in request.session.items
        if "verdicts" in item.fixturenames
    ]
    pool, cases = (
        court(os.cpu_count() or 1),
        {m.name: case(m, m.judges[0]) for m in chosen},
    )
    fair = {
        owner: pool.submit(innocent, *owner) for owner in dict.fromkeys(cases.values())
    }
    yield {
        m.name: (
            fair[cases[m.name]],
            pool.submit(caught, m, m.judges[:1], check_judges=False),
        )
        for m in chosen
    }
    pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.module}: {m.name}")
def test_mutation(mutation, verdicts):
    fair, noticed = verdicts[mutation.name]
    fair.result()  # or what the owner has against the package as it is
    assert noticed.result(), f"{mutation.judges[0]} did not notice"
    CAUGHT.append(mutation.name)


@pytest.mark.slow
def test_count(capsys):
    with capsys.disabled():
        print(f"\n{len(CAUGHT)} of {len(MUTATIONS)} mutations caught")
    assert len(CAUGHT) == len(MUTATIONS)


def test_the_count_is_written_down():
    assert total() in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), (
        f"CONTRIBUTING.md should say '{total()}'"
    )
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS) and len(QUICK) == 10
