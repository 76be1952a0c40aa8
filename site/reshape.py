"""What is changed in the text of a page, once Quarto has rendered it."""

import re
import struct
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from contents import Page, pages

HOME = "https://ddpm-lit.github.io/ddpm_lit/"
MARKS = {
    "by definition": "definition",
    "proved": "proved",
    "proved for a special case": "case",
    "refuted": "refuted",
    "checked": "checked",
    "tied": "tied",
}


def tag(name: str, text: str = "", **attributes: str) -> Tag:
    made = BeautifulSoup("", "html.parser").new_tag(name)
    for key, value in attributes.items():
        made[key.rstrip("_").replace("_", "-")] = value
    if text:
        made.string = text
    return made


def reshape(main: Tag, page: Page, site: Path) -> tuple[str, bool]:
    "Change the text in its place. Its table of contents, and whether it has formulas."
    for unwanted in main.select("header, script, style, nav#TOC"):
        unwanted.decompose()
    for heading in main.select("h2, h3, h4, h5"):
        linked(heading)
    for step in (functions, code, claims, links, pictures, tables, formulas, callouts):
        step(main, page, site)
    return contents(main), bool(main.select_one("span.math"))


def linked(heading: Tag) -> None:
    "A link to the heading, to be copied."
    del heading["class"]
    name = heading.get_text(" ", strip=True)
    link = tag("a", "#", href=f"#{heading.get('id', '')}", class_="anchor")
    link["aria-label"] = f"Link to {name}"
    heading.append(link)


# Code


def functions(main: Tag, page: Page, site: Path) -> None:
    """An exported function is shown once. nbdev shows heading, signature, docstring and,
    folded, the source, which has all of these: where there is a source, it stays."""
    for link in main.select("p > a[style]"):
        if link.get_text() == "source":
            place = link.parent.find_next("h3")
            place.insert_after(where(page.module, link["href"]))
            link.parent.decompose()
    for fold in main.select("details.code-fold"):
        summary = fold.find("summary")
        if summary is not None and summary.get_text() == "Exported source":
            shown_once(fold)
    for rule in main.select("hr"):
        rule.decompose()


def where(module: str, source: str) -> Tag:
    "Where a function lies, in the line below its name."
    line = tag("p", "in the package: ", class_="where")
    line.append(tag("code", f"ddpm_lit.{module}"))
    line.append(" · ")
    line.append(tag("a", "source", href=source))
    return line


def shown_once(fold: Tag) -> None:
    "The source of a function, open, in the place of all that repeats parts of it."
    cell = fold.parent
    fold.replace_with(fold.select_one("div.sourceCode"))
    cell["class"] = [*cell.get("class", []), "exported"]
    before = cell.find_previous_sibling()
    while before is not None and before.name in ("div", "p", "ul"):
        gone, before = before, before.find_previous_sibling()
        if "where" in gone.get("class", []):
            return
        gone.decompose()


def code(main: Tag, page: Page, site: Path) -> None:
    "Lines need no links, and blocks a way to be copied."
    for link in main.select("code.sourceCode > span > a:first-child"):
        link.decompose()
    for fold in main.select("details.code-fold > summary"):
        if fold.get_text() == "Code":
            fold.string = "Show the code"


# Claims


def claims(main: Tag, page: Page, site: Path) -> None:
    "Each claim becomes a block of its kind, its first formula a display."
    for line in main.select(".cell-output-markdown > p"):
        word = line.find("strong")
        if word is None or word.get_text() not in MARKS:
            continue
        claim_block(line, word)


def claim_block(line: Tag, word: Tag) -> None:
    kind = MARKS[word.get_text()]
    mark, name = line.contents[0], ""
    after = word.next_sibling
    found = re.match(r"\s*\((.*)\)\s*", str(after or ""), re.S)
    if found is None:
        return
    name = found[1]
    block = tag("div", class_=f"claim {kind}")
    head = tag("p", class_="head")
    head.append(tag("span", str(mark).strip(), class_="mark", aria_hidden="true"))
    head.append(tag("strong", word.get_text()))
    head.append(tag("span", name, class_="name"))
    block.append(head)
    body = tag("div", class_="body")
    for piece in list(after.next_siblings):
        body.append(piece.extract())
    block.append(body)
    line.replace_with(block)


# Links and pictures


def links(main: Tag, page: Page, site: Path) -> None:
    "Links to the book's own pages are relative, so that every copy leads to itself."
    root = "../" * page.address.count("/")
    for link in main.select("a[href]"):
        if link["href"].startswith(HOME):
            link["href"] = root + link["href"].removeprefix(HOME)
        if link.get("target") == "_blank":
            del link["target"]


def pictures(main: Tag, page: Page, site: Path) -> None:
    "Pictures have a size, so that nothing moves when they come, and come when needed."
    folder = (site / page.address).parent
    for number, image in enumerate(main.select("img")):
        source = str(image.get("src", ""))
        path = folder / source
        size = png_size(path) if source.endswith(".png") and path.is_file() else None
        if size:
            image["width"], image["height"] = map(str, size)
        if number:
            image["loading"] = "lazy"
        image["decoding"] = "async"
        if not image.get("alt"):
            caption = image.find_parent("figure")
            caption = caption and caption.find("figcaption")
            image["alt"] = "" if caption is None else caption.get_text(" ", strip=True)


def png_size(path: Path) -> tuple[int, int]:
    return struct.unpack(">II", path.read_bytes()[16:24])


# Wide things


def boxed(thing: Tag, name: str) -> None:
    box = tag("div", class_="wide", role="group")
    box["aria-label"] = name
    thing.wrap(box)


def tables(main: Tag, page: Page, site: Path) -> None:
    for table in main.select("table"):
        table["class"] = []
        boxed(table, "A table that may be wider than the page")


def formulas(main: Tag, page: Page, site: Path) -> None:
    for formula in main.select("span.math.display"):
        boxed(formula, "A formula that may be wider than the page")


def callouts(main: Tag, page: Page, site: Path) -> None:
    "A callout that can be folded is a <details>, which needs no script."
    for callout in main.select("div.callout"):
        header = callout.select_one(".callout-header")
        if header is None or "data-bs-toggle" not in header.attrs:
            continue
        title = header.select_one(".callout-title-container")
        body = callout.select_one(".callout-body")
        fold = tag("details", class_=" ".join(callout["class"]))
        summary = tag("summary")
        for piece in list(title.contents if title else []):
            summary.append(piece.extract())
        fold.append(summary)
        for piece in list(body.contents if body else []):
            fold.append(piece.extract())
        callout.replace_with(fold)


# On this page


def contents(main: Tag) -> str:
    "The headings of the second and third level, as a list of links."
    out: list[str] = []
    for heading in main.find_all(["h2", "h3"]):
        if not heading.get("id"):
            continue
        copy = BeautifulSoup(str(heading), "html.parser").find(heading.name)
        copy.select_one("a.anchor").decompose()
        text = copy.decode_contents().strip()
        out.append(
            f'<li class="{heading.name}"><a href="#{heading["id"]}">{text}</a></li>'
        )
    return f"<ol>{''.join(out)}</ol>" if len(out) > 1 else ""
