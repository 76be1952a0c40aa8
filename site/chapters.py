"""The map of the book: each page a box with a link, each arrow from what a page builds
on. Below it the same as a list, with the promise of each page."""

import re
from datetime import date
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any

from contents import Page, pages
from frame import MAP, TEMPLATES, framed

WIDTH, HEIGHT = 106, 46  # of a box
ACROSS, DOWN = 115, 112  # from box to box, from part to part
LEFT, TOP = 4, 26


def numbered() -> list[Page]:
    return [page for page in pages() if page.number]


@cache
def behind(page: Page) -> frozenset[Page]:
    "All pages that a page builds on, directly or not."
    return frozenset(page.needs).union(*(behind(need) for need in page.needs))


def direct(page: Page) -> list[Page]:
    "What a page builds on and none of the others that it needs does."
    others = frozenset().union(*(behind(need) for need in page.needs))
    return [need for need in page.needs if need not in others]


def places() -> dict[Page, tuple[int, int]]:
    "The upper left corner of each box: a row for each part."
    rows = list(dict.fromkeys(page.part for page in numbered()))
    found = {}
    for y, part in enumerate(rows):
        there = [page for page in numbered() if page.part == part]
        for x, page in enumerate(there):
            found[page] = (LEFT + ACROSS * x, TOP + DOWN * y)
    return found


def arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    "A curve from the lower edge of a box to the upper edge of another, or beside it."
    (a, b), (c, d) = start, end
    if b == d and c - a == ACROSS:
        return f"M{a + WIDTH} {b + HEIGHT / 2}L{c - 3} {d + HEIGHT / 2}"
    if b == d:  # a bow below the row
        low = b + HEIGHT + 26
        x, y = a + WIDTH / 2 + 12, c + WIDTH / 2 - 12
        return f"M{x} {b + HEIGHT}C{x} {low} {y} {low} {y} {d + HEIGHT + 3}"
    x, y = a + WIDTH / 2, c + WIDTH / 2
    bend = (d - b - HEIGHT) * 0.5
    return f"M{x} {b + HEIGHT}C{x} {b + HEIGHT + bend} {y} {d - bend} {y} {d - 3}"


def words(text: str) -> list[str]:
    "A title in at most two lines; the number stands before the first."
    lines = wrap("0.0 " + text, 16)
    lines[0] = lines[0][4:]
    return lines if len(lines) < 3 else [lines[0], lines[1][:14].rstrip() + " …"]


def name_of(page: Page) -> str:
    "A title without what explains it."
    title = page.short.removeprefix("Case study: ")
    return re.split(r"[:,] ", title)[0]


def drawing() -> dict[str, Any]:
    at = places()
    boxes, arrows = [], []
    for page, (x, y) in at.items():
        key = page.number.replace(".", "-")
        boxes.append(dict(page=page, x=x, y=y, lines=words(name_of(page)), key=key))
        for need in direct(page):
            way = arrow(at[need], (x, y))
            arrows.append(dict(way=way, ends=[need.number.replace(".", "-"), key]))
    parts = {page.part: y for page, (_, y) in at.items()}
    size = max(x for x, _ in at.values()) + WIDTH + 4, max(parts.values()) + HEIGHT + 34
    return dict(boxes=boxes, arrows=arrows, parts=parts, size=size, w=WIDTH, h=HEIGHT)


def promise(page: Page) -> str:
    "What a page says of itself below its title."
    found = re.search(r"^> (.*)$", "\n".join(page.cells[:2]), re.M)
    return found[1] if found else ""


def write(site: Path, today: str) -> None:
    parts = dict.fromkeys(page.part for page in pages())
    book = [
        dict(
            name=part,
            pages=[(page, promise(page)) for page in pages() if page.part == part],
        )
        for part in parts
    ]
    text = TEMPLATES.get_template("map.html").render(book=book, **drawing())
    lead = "Which page builds on which, and what each of them promises."
    page = framed(MAP, text, kind="page broad", lead=lead, date=today)
    (site / MAP.address).write_text(page, "utf-8")


if __name__ == "__main__":
    import sys

    write(Path(sys.argv[1]), date.today().isoformat())
