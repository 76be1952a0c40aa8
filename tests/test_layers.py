"The layers of a page: a short line, an early picture, what else there is folded."

import layers
from nbformat.v4 import new_markdown_cell


def test_the_line_of_each_page_is_short_and_begins_with_a_picture(capsys):
    with capsys.disabled():
        print("\n" + layers.table([]))
    wide = f"at most {layers.SCREENS} screens, a picture in the first {layers.FIRST}"
    assert not layers.broken(), f"{wide}; python tests/layers.py PAGE says more"


def test_what_is_not_explained_is_noticed():
    text = r"The rate $\kappa_t$ grows: $\kappa_t = t\,\omega$, and $\beta_t$ too."
    assert layers.unsaid([new_markdown_cell(text)]) == [r"\omega"]
