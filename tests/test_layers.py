"The layers of a page: a short line, an early picture, what else there is folded."

import layers


def test_the_line_of_each_page_is_short_and_begins_with_a_picture(capsys):
    with capsys.disabled():
        print("\n" + layers.table([]))
    allowed, found = layers.excepted(), layers.everything()
    worse = {
        f"{page}: {kind}": n
        for page, kinds in found.items()
        for kind, n in kinds.items()
        if n > allowed.get(page, {}).get(kind, 0)
    }
    assert not worse, f"at most {layers.SCREENS} screens, a picture in the first two"


def test_the_list_of_exceptions_has_only_shrunk():
    found = layers.everything()
    mended = [
        f"{page}: {kind}"
        for page, kinds in layers.excepted().items()
        for kind in kinds
        if kind not in found.get(page, {})
    ]
    assert not mended, "run python tests/layers.py --strike: its list can shrink"
