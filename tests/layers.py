"""The three layers of a page, measured without a browser: how many screens its line
has, where its first picture stands, which results are Python's own words for them.

    python tests/layers.py [posterior ...]

prints the table, and of a named page what is wrong with it."""

import re
import sys
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO

from book import NBS, NOTEBOOKS, code, name_of, read
from PIL import Image

ASIDE = ("Evidence", "Solution")  # headings of what is folded
COLLAPSED = "jp-MarkdownHeadingCollapsed"  # JupyterLab's own mark of a folded heading
SCREEN = 900  # pixels
SCREENS = 12  # of a line
DRAWING = 235  # pixels, of nbs/images/chain.svg on a page
FIRST = 2  # screens, within which a page shows what it is about
REPR = re.compile(r"[\[{('\"]|\w+\((?!s\))|None$|True$|False$")
PAGES = [page for page in NOTEBOOKS if page.parent != NBS / "reference"]


# Which layer a cell belongs to


def level(cell) -> int:
    "Of the heading that a cell is, or 0."
    found = re.match(r"(#+) ", cell.source) if cell.cell_type == "markdown" else None
    return len(found[1]) if found else 0


def title(cell) -> str:
    return cell.source.splitlines()[0].lstrip("# ")


def layered(cells) -> Iterator[tuple]:
    "Each cell, and whether it belongs to the line."
    folded = 7
    for cell in cells:
        if 0 < level(cell) <= folded:
            folded = level(cell) if title(cell).startswith(ASIDE) else 7
        yield cell, folded == 7


# How high a cell is on a page of 1280 pixels


def lines(text: str, columns: int) -> int:
    "After wrapping."
    return sum(max(1, -(-len(line) // columns)) for line in text.splitlines())


def markdown(text: str) -> int:
    height = 0
    text = re.sub(r"\]\([^)]*\)(\{#[^}]*\})?", "]", text)
    for block in re.split(r"\n{2,}", text.strip()):
        if block.startswith("#"):
            height += {1: 0, 2: 95, 3: 72}.get(len(block.split()[0]), 60)
        elif block.startswith("$$"):
            height += 80
        elif block.startswith("|"):
            height += 36 * (len(block.splitlines()) - 1) + 30
        elif re.match(r"[-*]|\d+\.", block):
            height += 29 * lines(block, 74) + 6 * len(block.splitlines()) + 19
        elif block.startswith("<"):
            height += 0
        elif block.startswith("!["):
            height += DRAWING + 24 * lines(block, 95) + 19
        else:
            height += 29 * lines(re.sub(r"\\[a-z]+|[{}$]", "", block), 74) + 19
    return height


def picture(output) -> int:
    "The height of an image as it is shown."
    data = output.data
    for size in output.metadata.values():
        if "height" in size:
            return size["height"]
    if "image/svg+xml" in data:
        found = re.search(r'height="([\d.]+)pt"', "".join(data["image/svg+xml"]))
        return round(float(found[1]) * 4 / 3) if found else 300
    encoded = next(data[kind] for kind in data if kind.startswith("image/"))
    width, height = Image.open(BytesIO(b64decode(encoded))).size
    return round(min(1, 800 / width) * height)


def is_picture(output) -> bool:
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def shown(output) -> int:
    "The height of an output."
    data = output.get("data", {})
    if is_picture(output):
        return picture(output) + 90
    if "text/markdown" in data:
        text = data["text/markdown"]
        if re.match(r"[✓◑≝✗≈⇔] \*\*", text):
            return 145 if re.search(r"\*\* .*?&emsp; \$", text) else 85
        return markdown(text)
    if "text/latex" in data:
        return 80
    if "text/html" in data:
        return 34 * data["text/html"].count("<tr") + 60
    return 21 * lines(output.get("text") or data.get("text/plain", ""), 98) + 20


def source(cell) -> int:
    "The height of the code of a cell: what only imports or draws is folded."
    text = code(cell).strip()
    if not text or re.search(r"#\|\s*(export$|echo: false|hide)", cell.source, re.M):
        return 0  # not on the site
    rest = re.sub(r"(?ms)^(from|import) [^\n(]*(\([^)]*\))?\n?", "", text).strip()
    draws = any(map(is_picture, cell.get("outputs", [])))
    if not rest or rest == 'plt.style.use("ddpm_lit.figures")' or draws:
        return 45
    if re.search(r"#\|\s*code-fold: true", cell.source):
        return 45
    named = 95 if re.match(r"#\|\s*exports\b", cell.source) else 0
    if cell.metadata.get("jupyter", {}).get("source_hidden"):
        return 45 + named
    return round(21.6 * len(text.splitlines())) + 45 + named


def height(cell) -> int:
    if cell.cell_type == "markdown":
        return markdown(cell.source)
    return source(cell) + sum(map(shown, cell.outputs))


# A page


@dataclass
class Layers:
    words: int  # of the line
    screens: float  # of the line, with all that is folded closed
    first: float | None  # the screen at which the first picture begins
    pictures: int
    code: int  # lines of code in the line
    reprs: list[str]  # results in Python's words, in all layers
    stray: list[str]  # headings between evidence and the next section
    open: list[str]  # headings that JupyterLab would not fold
    unsaid: list[str]  # symbols that nobody has explained


def measured(page) -> Layers:
    cells = read(page).cells
    found = Layers(0, 0.0, None, 0, 0, [], [], [], unsaid(cells))
    top = 330  # title, lead and facts
    for cell, in_line in layered(cells):
        aside = level(cell) and title(cell).startswith(ASIDE)
        if aside:
            top += 58
            if COLLAPSED not in cell.metadata:
                found.open.append(title(cell))
        outputs = cell.get("outputs", [])
        found.pictures += sum(map(is_picture, outputs))
        found.reprs += [text[:60] for text in map(bare, outputs) if REPR.match(text)]
        if not in_line:
            continue
        if found.first is None and re.search(r"!\[.*\]\(|<img ", cell.source):
            found.first = top / SCREEN
        if found.first is None and any(map(is_picture, outputs)):
            found.first = top / SCREEN
        top += height(cell)
        if cell.cell_type == "markdown":
            found.words += len(cell.source.split())
        elif source(cell) > 45:
            found.code += len(code(cell).splitlines())
    found.screens = top / SCREEN
    found.stray = stray(cells)
    return found


def bare(output) -> str:
    "What a result is called in Python, where it is shown in no other way."
    data = output.get("data", {})
    return data.get("text/plain", "") if set(data) == {"text/plain"} else ""


def stray(cells) -> list[str]:
    "Headings of the line below which the reader would look for it, behind evidence."
    out, deep = [], 0
    for cell in cells:
        if not level(cell):
            continue
        if title(cell).startswith(ASIDE):
            deep = level(cell)
        elif deep and level(cell) == deep:
            out.append(title(cell))
        elif level(cell) < deep:
            deep = 0
    return out


# Symbols

ACCENTED = r"\\(?:bar|hat|tilde)\s*\{?\\?[A-Za-z]+\}?"
GREEK = "alpha|beta|gamma|delta|varepsilon|eta|kappa|lambda|mu|nu|phi|varphi|psi|rho"
GREEK += "|sigma|tau|theta|xi|omega|Phi|Lambda|Omega"
SYMBOL = re.compile(rf"{ACCENTED}|\\(?:{GREEK})(?![a-z])")
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$]+\$", re.S)


def symbols(text: str) -> list[str]:
    "Greek and accented letters in formulas, as they are written without spaces."
    found = SYMBOL.findall(" ".join(FORMULA.findall(text)))
    return [re.sub(r"[\s{}]", "", symbol) for symbol in found]


@cache
def of_the_book() -> set[str]:
    "The symbols in the tables of page 1.1."
    page = next(page for page in PAGES if page.stem == "01_notation")
    text = "\n".join(c.source for c in read(page).cells if c.cell_type == "markdown")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return set(symbols("\n".join(rows)))


def explained(symbol: str, text: str) -> bool:
    "Whether a formula of its own begins with a symbol: `the precision $\\rho$`."
    inline = (re.sub(r"[\s{}]", "", f) for f in FORMULA.findall(text))
    alone = rf"\$+{re.escape(symbol)}(_\w+|\(\w+\))?(\$|=)"
    return any(re.match(alone, formula) for formula in inline)


def unsaid(cells) -> list[str]:
    "Symbols that the line uses before they are explained, there or on page 1.1."
    known, out = set(of_the_book()), []
    for cell, in_line in layered(cells):
        if not in_line or cell.cell_type != "markdown":
            continue
        new = [s for s in dict.fromkeys(symbols(cell.source)) if s not in known]
        out += [symbol for symbol in new if not explained(symbol, cell.source)]
        known |= set(new)
    return out


def faults(found: Layers) -> dict[str, float]:
    "What breaks the limits of a page."
    late = 99 if found.first is None else round(found.first, 1)
    high = round(found.screens, 1)
    return {
        "screens": high * (high > SCREENS),
        "first picture": late * (late > FIRST),
        "reprs": len(found.reprs),
        "stray headings": len(found.stray),
        "open evidence": len(found.open),
        "symbols not explained": len(found.unsaid),
    }


def broken() -> dict[str, dict[str, float]]:
    "The limits that pages break."
    found = {name_of(page): faults(measured(page)) for page in PAGES}
    worse = {page: {k: n for k, n in f.items() if n} for page, f in found.items()}
    return {page: f for page, f in worse.items() if f}


def table(names: list[str]) -> str:
    head = f"{'page':34} words screens first pictures code reprs unsaid"
    rows = [head]
    for page in PAGES:
        if names and not any(name in page.name for name in names):
            continue
        m = measured(page)
        first = "none" if m.first is None else f"{m.first:.1f}"
        rows.append(
            f"{name_of(page):34} {m.words:5} {m.screens:7.1f} {first:>5} {m.pictures:8}"
            f" {m.code:4} {len(m.reprs):5} {len(m.unsaid):6}"
        )
        if names:
            rows += [f"    {text}" for text in [*m.reprs, *m.stray, *m.open, *m.unsaid]]
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(sys.argv[1:]))
