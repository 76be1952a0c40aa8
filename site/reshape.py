"""What is changed in the text of a page, once Quarto has rendered it."""

import ast
import re
import struct
from itertools import takewhile
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from contents import ROOT, Page
from source import public

HOME = "https://ddpm-lit.github.io/ddpm_lit/"
CODE = "https://github.com/ddpm-lit/ddpm_lit/blob/main"
KINDS = {  # the word of a claim, and how its block looks
    "by definition": "definition",
    "proved": "proved",
    "proved for": "case",
    "refuted": "refuted",
    "checked": "checked",
    "tied": "tied",
}
ASIDE = ("Evidence", "Solution")  # headings of what the line of a page does not need
FOLDED = {"refuted": "A counterexample"}  # what follows the formula; else conditions


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
    evidence(main)
    functions(main, page, site)
    for title in main.select("h2, h3, h4, h5"):
        linked(title)
    for step in (code, links, pictures, tables, formulas, callouts):
        step(main, page, site)
    return contents(main), bool(main.select_one("span.math"))


def evidence(main: Tag) -> None:
    "What is not part of the line, from its heading to the next as high, is folded."
    for title in main.select("h2, h3, h4"):
        if not title.get_text().startswith(ASIDE) or title.find_parent("details"):
            continue
        fold = tag("details", class_="aside")
        higher = [f"h{level}" for level in range(1, int(title.name[1]) + 1)]
        inside = list(
            takewhile(lambda one: one.name not in higher, title.next_siblings)
        )
        title.insert_before(fold)
        summary = tag("summary")
        summary.append(title.extract())
        fold.append(summary)
        for piece in inside:
            fold.append(piece.extract())


def linked(heading: Tag) -> None:
    "A link to the heading, to be copied."
    name = re.sub("\ue000\\d+\ue001", "formula", heading.get_text(" ", strip=True))
    heading.append(anchor(heading.get("id", ""), name))


def anchor(place: str, name: str) -> Tag:
    "A link to a place, which shows when one points at it."
    link = tag("a", "#", href=f"#{place}", class_="anchor")
    link["aria-label"] = f"Link to {name}"
    link["data-pagefind-ignore"] = ""
    return link


# Code


def functions(main: Tag, page: Page, site: Path) -> None:
    "An exported cell has a heading with its name, and says where it lies."
    for fold in main.select("details.code-fold"):
        summary = fold.find("summary")
        if summary is not None and summary.get_text() == "Exported source":
            exported(fold, page)


def exported(fold: Tag, page: Page) -> None:
    block, cell = fold.select_one("div.sourceCode"), fold.parent
    fold.replace_with(block)
    cell["class"] = [*cell.get("class", []), "exported"]
    top = [
        node
        for node in ast.parse(block.get_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
    ]
    for node in top:
        cell.insert_before(heading(node.name))
        cell.insert_before(where(page, node.name))
    for node in top:
        for method in getattr(node, "body", []):
            if isinstance(node, ast.ClassDef) and isinstance(method, ast.FunctionDef):
                name = f"{node.name}.{method.name}".lower()
                block.insert_before(tag("span", id=name))
    if any(node.name in page.hidden for node in top):
        says = (ast.get_docstring(top[0]) or "The code").splitlines()[0]
        folded(block, says.replace("`", ""))


def heading(name: str) -> Tag:
    made = tag("h3", id=name.lower(), class_="function")
    made["data-pagefind-weight"] = "10"
    made.append(tag("code", name))
    return made


def where(page: Page, name: str) -> Tag:
    "Where a function lies, in the line below its name."
    module = page.module
    file = f"ddpm_lit/{module.replace('.', '/')}.py"
    line = tag("p", "in the package: ", class_="where")
    line.append(tag("code", f"ddpm_lit.{module}"))
    line.append(" · ")
    lines = (ROOT / file).read_text("utf-8").splitlines()
    starts = [i for i, text in enumerate(lines, 1) if defined(text) == name]
    anchor = f"#L{starts[0]}" if starts else ""
    line.append(tag("a", "source", href=f"{CODE}/{file}{anchor}"))
    if name in public().get(module, []):
        entry = f"reference/api/{module}.html#{name.lower()}"
        line.append(" · ")
        line.append(tag("a", "reference", href=page.root + entry))
    return line


def defined(line: str) -> str:
    found = re.match(r"(?:def|class) (\w+)", line)
    return found[1] if found else ""


def code(main: Tag, page: Page, site: Path) -> None:
    "Lines need no links, and blocks a way to be copied."
    for link in main.select("code.sourceCode > span > a:first-child"):
        link.decompose()
    for summary in main.select("details.code-fold > summary"):
        if summary.get_text() == "Code":
            summary.string = folded_name(summary.find_parent("div", class_="cell"))
    for cell in main.select("div.cell"):
        source = cell.find("div", class_="sourceCode", recursive=False)
        if source is None or "exported" in cell["class"]:
            continue
        if only_imports(source.get_text()):
            folded(source, "Imports")
        elif cell.select_one("figure") and len(source.get_text().splitlines()) > 6:
            folded(source, "The code of this figure")


def folded_name(cell: Tag) -> str:
    "What a page calls the code that its notebook asks to fold."
    if only_imports(cell.select_one("div.sourceCode").get_text()):
        return "Imports"
    return "The code of this figure" if cell.select_one("figure") else "Show the code"


def only_imports(text: str) -> bool:
    "Whether a cell only imports, and perhaps chooses the style of figures."
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return False
    kinds = (ast.Import, ast.ImportFrom)
    rest = [node for node in tree.body if not isinstance(node, kinds)]
    style = all("style.use" in ast.unparse(node) for node in rest)
    return style and len(rest) < len(tree.body)


def folded(source: Tag, name: str) -> None:
    fold = source.wrap(tag("details", class_="code-fold"))
    fold.insert(0, tag("summary", name))


# Claims


def claims(main: Tag) -> None:
    """Each claim becomes a block of its kind, its formula a display. This comes before
    the formulas are set."""
    taken: set[str] = set()
    for line in main.select(".cell-output-markdown > p"):
        word = line.find("strong")
        words = word.get_text() if word else ""
        kind = KINDS.get(words, KINDS.get(words[: len("proved for")], ""))
        found = re.match(r"\s*\((.*)\)\s*$", named(word), re.S) if kind else None
        if found:
            made = block(kind, words, found[1], line, word)
            place = re.sub(r"\W+", "-", f"claim {found[1].lower()}").strip("-")
            while place in taken:
                place += "-again"
            taken.add(place)
            made["id"] = place
            made.select_one(".head").append(anchor(place, f"the claim {found[1]}"))
            line.replace_with(made)


def named(word: Tag) -> str:
    "What stands behind the word of a claim, up to its formula."
    text = str(word.next_sibling or "")
    return text.split("\u2003")[0]


def block(kind: str, words: str, name: str, line: Tag, word: Tag) -> Tag:
    made = tag("div", class_=f"claim {kind}")
    head = tag("p", class_="head")
    mark = str(line.contents[0]).strip()
    head.append(tag("span", mark, class_="mark", aria_hidden="true"))
    head.append(tag("strong", words))
    head.append(tag("span", name, class_="name"))
    made.append(head)
    first = word.next_sibling
    rest = str(first).split("\u2003", 1)[-1].lstrip() if first else ""
    pieces = [rest, *(piece.extract() for piece in list(first.next_siblings))]
    formula = next((p for p in pieces if is_formula(p)), None)
    if formula is None or rest:
        made.append(paragraph(pieces, "body"))
        return made
    formula["class"] = ["math", "display"]
    made.append(formula)
    after = pieces[pieces.index(formula) + 1 :]
    if "".join(map(text_of, after)).strip(" .,;"):
        fold = tag("details")
        fold.append(tag("summary", FOLDED.get(kind, "Conditions")))
        fold.append(paragraph([cut(after[0]), *after[1:]], "rest"))
        made.append(fold)
    return made


def is_formula(piece: object) -> bool:
    return isinstance(piece, Tag) and "math" in piece.get("class", [])


def text_of(piece: object) -> str:
    return piece.get_text() if isinstance(piece, Tag) else str(piece)


def cut(piece: object) -> object:
    "Without the comma that joined it to the formula."
    return piece if isinstance(piece, Tag) else str(piece).lstrip(" ,;")


def paragraph(pieces: list, kind: str) -> Tag:
    made = tag("p", class_=kind)
    for piece in pieces:
        made.append(piece)
    return made


# Links and pictures


def links(main: Tag, page: Page, site: Path) -> None:
    "Links to the book's own pages are relative, so that every copy leads to itself."
    for link in main.select("a[href]"):
        if link["href"].startswith(HOME):
            link["href"] = page.root + link["href"].removeprefix(HOME)
        if link.get("target") == "_blank":
            del link["target"]


def pictures(main: Tag, page: Page, site: Path) -> None:
    "Pictures have a size, so that nothing moves when they come, and come when needed."
    folder = (site / page.address).parent
    for number, image in enumerate(main.select("img")):
        source = str(image.get("src", ""))
        path = folder / source
        size = png_size(path) if source.endswith(".png") and path.is_file() else None
        if size and not image.get("height"):
            image["width"], image["height"] = map(str, size)
        if number:
            image["loading"] = "lazy"
        place = image.find_parent(id=re.compile("^fig-"))
        words = place and place.find("figcaption")
        if words and not words.select("a.anchor"):
            words.append(anchor(place["id"], "this figure"))
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
        if not heading.get("id") or heading.find_parent("details"):
            continue
        copy = BeautifulSoup(str(heading), "html.parser").find(heading.name)
        copy.select_one("a.anchor").decompose()
        for link in copy.select("a"):
            link.unwrap()
        text = copy.decode_contents().strip()
        out.append(
            f'<li class="{heading.name}"><a href="#{heading["id"]}">{text}</a></li>'
        )
    return f"<ol>{''.join(out)}</ol>" if len(out) > 1 else ""
