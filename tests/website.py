"""What the site still lacks, measured without Quarto: docstrings, comments of
parameters, captions and descriptions of figures, anchors that lead nowhere. The list
in tests/site.json can only shrink: `python tests/website.py` strikes what was mended."""

import ast
import json
import re
import sys
from collections.abc import Iterator

from book import NBS, NOTEBOOKS, ROOT, code, name_of, read

sys.path.insert(0, str(ROOT / "site"))  # the scripts that make the site

import reference
from source import home, modules, public

FILE = ROOT / "tests" / "site.json"
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)")
IN_CODE = re.compile(r"`[^`\n]+`|\$[^$]+\$")


# The reference


def entries() -> Iterator:
    "All entries of public names, methods and properties."
    for module, names in public().items():
        for name in names:
            entry = modules()[module].entry(name)
            yield entry
            yield from entry.members


def without_docstring() -> list[str]:
    return [f"{one.module}.{one.full}" for one in entries() if not one.doc]


def without_comment() -> list[str]:
    return [
        f"{one.module}.{one.full}: {parameter.name}"
        for one in entries()
        for parameter in one.parameters
        if not parameter.comment
    ]


# The pages


def figures() -> Iterator[tuple[str, str]]:
    "The label of each figure, and the source of its cell."
    for page in NOTEBOOKS:
        for cell in read(page).cells:
            label = re.search(r"^#\|\s*label:\s*(fig-\S+)", cell.source, re.M)
            if label and cell.cell_type == "code":
                yield f"{name_of(page)}: {label[1]}", cell.source


def without(option: str) -> list[str]:
    "The figures that do not have this option."
    given = re.compile(rf"^#\|\s*{option}:\s*\S", re.M)
    return [name for name, source in figures() if not given.search(source)]


def anchors(page) -> set[str]:
    "Where a link into a page may lead."
    found = {"content"}
    for cell in read(page).cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^##+ (.+?)\s*$", cell.source, re.M)
            found |= {reference.slug(heading) for heading in headings}
            found |= set(re.findall(r"(?:\{#|id=\")([\w-]+)", cell.source))
            continue
        found |= set(re.findall(r"^#\|\s*label:\s*(\S+)", cell.source, re.M))
        if re.match(r"#\|\s*exports?\b", cell.source):
            found |= names_in(code(cell))
    return found


def names_in(source: str) -> set[str]:
    "What the site gives an anchor in an exported cell: functions, classes, methods."
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name.lower())
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{part.name}".lower()
                for part in node.body
                if isinstance(part, ast.FunctionDef)
            }
    return found


def links() -> Iterator[tuple[str, str]]:
    "Each link between notebooks, with what is wrong with it."
    known = {page: anchors(page) for page in NOTEBOOKS}
    for page in NOTEBOOKS:
        for cell in read(page).cells:
            if cell.cell_type != "markdown":
                continue
            for target, anchor in LINK.findall(IN_CODE.sub("", cell.source)):
                yield (
                    f"{name_of(page)}: {target}#{anchor}",
                    wrong(page, target, anchor, known),
                )


def wrong(page, target: str, anchor: str, known: dict) -> str:
    if re.match(r"[a-z]+:", target):
        return ""
    there = (page.parent / target).resolve() if target else page
    if not there.exists():
        return "there is no such file"
    if not there.is_relative_to(NBS):
        return "it lies outside nbs"
    if anchor and there.suffix == ".ipynb" and anchor not in known.get(there, ()):
        return "there is no such place"
    return ""


def twice() -> Iterator[str]:
    "Links around a function's name, of which nbdev makes a second link inside."
    for page in NOTEBOOKS:
        for cell in read(page).cells:
            if cell.cell_type == "markdown":
                for name in re.findall(r"\[[^\[\]]*`(\w+)`[^\[\]]*\]\(", cell.source):
                    if name in home():
                        yield f"{name_of(page)}: {name} would be a link in a link"


def broken_links() -> list[str]:
    return [name for name, fault in links() if fault] + list(twice())


def measured() -> dict[str, list[str]]:
    "All that is to be mended."
    return {
        "no docstring": without_docstring(),
        "no comment": without_comment(),
        "no caption": without("fig-cap"),
        "no description": without("fig-alt"),
        "broken links": broken_links(),
    }


def excepted() -> dict[str, list[str]]:
    return json.loads(FILE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    now = measured()
    left = {
        kind: [name for name in names if name in now[kind]]
        for kind, names in excepted().items()
    }
    text = json.dumps(left, indent=1, ensure_ascii=False)
    FILE.write_text(text + "\n", encoding="utf-8")
    for kind, names in left.items():
        print(f"{kind}: {len(names)}")
