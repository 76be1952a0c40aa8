"The rendered site in a browser (`pytest -m site`): nothing cut, shifted or foreign."

import browser
import website  # noqa: F401  (adds the folder site)
import pytest

pytestmark = pytest.mark.site
LIGHT = 600  # kB of a first visit, compressed as a host sends it, without pictures
READY = 1500  # milliseconds


@pytest.fixture(scope="module")
def found():
    if reason := browser.missing():
        pytest.skip(reason)
    return browser.everything([])


def every(found, fact, fine):
    return {page: f[fact] for page, f in found.items() if not fine(f[fact])}


@pytest.mark.parametrize(
    "fact", ["foreign", "errors", "broken", "sideways", "cut", "signless", "wrapped"]
)
def test_no_page_has(fact, found):
    "requests elsewhere, errors, dead links, sideways scroll, cut or wrapped things."
    assert not every(found, fact, lambda value: not value)


def test_nothing_moves_while_a_page_comes(found):
    assert not every(found, "shift", lambda shift: shift < 0.05)


def test_a_first_visit_is_light(found):
    assert not every(found, "kB", lambda weight: weight <= LIGHT)


def test_pages_are_soon_ready(found):
    assert not every(found, "interactive ms", lambda time: time < READY)


@pytest.mark.parametrize("light", ["light", "dark"])
def test_everyone_can_use_it(light, found):
    "axe-core finds nothing serious or critical."
    assert not every(found, "axe", lambda faults: not faults[light])


def test_no_page_of_the_book_is_missing(found):
    from contents import pages

    assert {page.address for page in pages()} <= set(found)
