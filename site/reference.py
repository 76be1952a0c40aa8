"""The reference of the library: a page for each module, made from its source, with the
examples of site/examples. `python site/reference.py FOLDER` writes these pages alone."""

import ast
import io
import json
import keyword
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import example
import flags
import mistune
from bs4 import BeautifulSoup
from contents import ROOT, Page, pages
from frame import CHANGES, COMMAND, LIBRARY, REPOSITORY, TEMPLATES, Made, framed
from reshape import contents, linked
from source import Entry, Module, Parameter, home, modules, public

MARKS = {
    "proved": "✓",
    "special case": "◑",
    "by definition": "≝",
    "refuted": "✗",
    "checked": "≈",
    "tied": "⇔",
}
UP = "../../"  # from a page of the reference to the root of the site
WIDTH = 84  # characters of a signature in one line


# What has an entry, and where


@cache
def shown() -> dict[str, list[str]]:
    """The names of each module's page: the public ones, then what the text of the book
    or a signature names besides."""
    named = set()
    for page in pages():
        named |= set(re.findall(r"`(\w+)(?:\([^`]*\))?`", page.prose))
    found = {}
    for module, names in public().items():
        there = modules()[module]
        for name in names:
            entry = there.entry(name)
            for one in (entry, *entry.members):
                kinds = [part.kind for part in (*one.parameters, one.returns) if part]
                named |= set(re.findall(r"\w+", " ".join(kinds)))
        found[module] = names
    return {
        module: names + [n for n in modules()[module].exported if more(n, named, names)]
        for module, names in found.items()
    }


def more(name: str, named: set[str], names: list[str]) -> bool:
    return name in named and name not in names and len(name) > 1


@cache
def places() -> dict[str, str]:
    "The address of each entry, from the root of the site."
    found = {}
    for module, names in shown().items():
        for name in names:
            entry = modules()[module].entry(name)
            for one in (entry, *entry.members):
                found[one.full] = f"reference/api/{module}.html#{one.id}"
    return found


@cache
def in_the_book() -> dict[str, str]:
    "Where the book shows each function and class, as nbdev's index has it."
    tree = ast.parse((ROOT / "ddpm_lit" / "_modidx.py").read_text("utf-8"))
    index = ast.literal_eval(tree.body[-1].value)  # type: ignore[attr-defined]
    return {
        name.removeprefix("ddpm_lit."): address
        for names in index["syms"].values()
        for name, (address, _) in names.items()
    }


@cache
def page_of(module: str) -> Page:
    return next(page for page in pages() if page.module == module)


# Text


def named(name: str, beside: str = "") -> str:
    "The address of a name; beside: the class in whose entry it stands."
    for full in (f"{beside}.{name}", name):
        if full in places():
            return places()[full]
    module = home().get(name)
    return in_the_book().get(f"{module.name}.{name}", "") if module else ""


def code(text: str, beside: str = "") -> str:
    "A name or a piece of code, with a link where it has an entry."
    address = named(text.partition("(")[0], beside)
    made = f"<code>{escape(text)}</code>"
    return f'<a href="{UP}{address}">{made}</a>' if address else made


def prose(text: str, beside: str = "") -> str:
    "A comment or a docstring: code between backticks."
    pieces = text.split("`")
    made = (code(p, beside) if i % 2 else escape(p) for i, p in enumerate(pieces))
    return "".join(made)


def words(text: str) -> str:
    "A text of the command: its flags and names as code."
    text = re.sub(r"(?<![\w`-])--[a-z][\w-]*", r"`\g<0>`", text)
    pieces = escape(text, quote=False).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))


def kind(text: str, but: str = "") -> str:
    "A type, each of its names with a link to its entry; but one that is its own."

    def link(found: re.Match[str]) -> str:
        address = "" if found[0] == but else places().get(found[0], "")
        return f'<a href="{UP}{address}">{found[0]}</a>' if address else found[0]

    return re.sub(r"(?<![\w.\"])[A-Z]\w*(?![\w\"])", link, escape(text, quote=False))


def signature(entry: Entry) -> str:
    "How it is called, in one line or a parameter in each."
    if entry.kind in ("constant", "type"):
        return kind(f"{entry.name} = {entry.value}", entry.name)
    back = f" -> {entry.returns.kind}" if entry.returns else ""
    if entry.kind == "property":
        return kind(f"{entry.full}{back.replace(' ->', ':')}", entry.owner)
    words: list[str] = []
    for one in entry.parameters:
        if one.after_star and not any(word.startswith("*") for word in words):
            words.append("*")
        words.append(one.code)
    name = entry.full.removesuffix(".__call__")
    line = f"{name}({', '.join(words)}){back}"
    if len(line) > WIDTH:
        line = f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){back}"
    return kind(line, entry.owner or entry.name)


COLOURS = {
    tokenize.STRING: "st",
    tokenize.NUMBER: "dv",
    tokenize.COMMENT: "co",
}


def coloured(text: str) -> str:
    "Python as HTML, with the classes that pandoc gives."
    out, place = [], 0
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        css = COLOURS.get(token.type, "")
        if token.type == tokenize.NAME and keyword.iskeyword(token.string):
            css = "kw"
        if not css:
            continue
        begin = starts[token.start[0] - 1] + token.start[1]
        end = starts[token.end[0] - 1] + token.end[1]
        out.append(escape(text[place:begin], quote=False))
        out.append(f'<span class="{css}">{escape(text[begin:end], quote=False)}</span>')
        place = end
    return "".join(out) + escape(text[place:], quote=False)


# Claims


@cache
def claims() -> list[dict[str, str]]:
    text = (ROOT / "nbs" / "ledger.json").read_text("utf-8")
    return [
        {"page": page, **claim}
        for page, found in json.loads(text).items()
        for claim in found
    ]


def slug(heading: str) -> str:
    "The anchor of a heading on the site."
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " _-.")
    return "-".join(kept.lstrip(" _-.0123456789").split())


def equations(entry: Entry) -> list[tuple[str, str]]:
    "What was claimed about a function: names of claims, and links to where."
    own = entry.function or entry.full
    mine = [c for c in claims() if c["function"] == own]
    found: dict[tuple[str, str], dict[str, str]] = {}
    for claim in mine:
        same = (claim["page"], claim.get("proof", claim["name"]))
        for one in claims():
            named = (one["page"], one.get("proof", one["name"]))
            if named == same and one["function"] in ("", own):
                address = address_of(one)
                found.setdefault(same, {}).setdefault(one["kind"], address)
    return [
        (
            escape(name),
            ", ".join(
                f'<a href="{UP}{address}">{MARKS[kind]} {kind}</a>'
                for kind, address in kinds.items()
            ),
        )
        for (_, name), kinds in found.items()
    ]


def address_of(claim: dict[str, str]) -> str:
    page = next(p for p in pages() if p.notebook == claim["page"])
    return f"{page.address}#{slug(claim['section'])}"


# Entries


def row(one: Parameter, beside: str) -> dict[str, str]:
    return {
        "name": escape(one.name),
        "kind": kind(one.kind),
        "about": prose(one.comment, beside),
        "default": escape(one.default, quote=False),
    }


def view(entry: Entry, beside: list[str]) -> dict[str, Any]:
    "An entry, as the template shows it."
    owner = entry.owner or entry.name
    book = in_the_book()
    standing = entry.function or entry.full
    at = book.get(f"{entry.module}.{standing}") or book.get(f"{entry.module}.{owner}")
    page = page_of(entry.module)
    shown_by = example.of(entry.module).get(entry.full)
    back = entry.returns
    return {
        "entry": entry,
        "signature": signature(entry),
        "about": prose(entry.about, owner),
        "rows": [row(one, owner) for one in entry.parameters],
        "enum": "IntEnum" in entry.bases,
        "back": back and (kind(back.kind), prose(back.comment, owner)),
        "errors": [prose(one, owner) for one in entry.errors],
        "bases": [code(base) for base in entry.bases if base in places()],
        "equations": equations(entry),
        "example": shown_by and (coloured(shown_by.code), escape(shown_by.output)),
        "book": f"{UP}{at or page.address}",
        "page": page.title,
        "source": f"{REPOSITORY}/blob/main/{entry.file}#L{entry.line}",
        "beside": [code(name) for name in beside if name != entry.full],
        "takers": [code(name) for name in takers(entry.full) if name not in beside],
        "members": [view(one, []) for one in entry.members],
    }


@cache
def takers(name: str) -> list[str]:
    "The public functions that take a value of this class."
    found = []
    for module, names in public().items():
        for other in names:
            entry = modules()[module].entry(other)
            kinds = " ".join(one.kind for one in entry.parameters)
            if other != name and re.search(rf"\b{name}\b", kinds):
                found.append(other)
    return found


# Pages


def body(template: str, **facts: Any) -> tuple[str, str]:
    "A text made from a template, and its table of contents."
    text = TEMPLATES.get_template(template).render(facts)
    return with_anchors(text)


def with_anchors(text: str) -> tuple[str, str]:
    soup = BeautifulSoup(f"<main>{text}</main>", "lxml").main
    assert soup is not None
    for heading in soup.select("h2[id], h3[id]"):
        linked(heading)
    return soup.decode_contents(), contents(soup)


def made(module: str) -> Made:
    return Made(f"reference/api/{module}.html", f"ddpm_lit.{module}")


def module_page(module: Module, today: str) -> str:
    names, first = shown()[module.name], public()[module.name]
    views = [view(module.entry(name), names) for name in names]
    parts = dict(public=views[: len(first)], more=views[len(first) :])
    text, table = body("api.html", **parts)
    place = order().index(module.name)
    before, after = ["", *order()][place], [*order(), ""][place + 1]
    lead = escape(module.promise.replace("$", ""))
    return framed(
        made(module.name),
        text,
        lead=lead,
        description=lead,
        contents=table,
        current=LIBRARY.address,
        before=made(before) if before else LIBRARY,
        after=made(after) if after else COMMAND,
        date=today,
    )


@cache
def order() -> list[str]:
    "The modules that have public names, as the book has them."
    return [page.module for page in pages() if page.module in public()]


def groups() -> Iterator[dict[str, Any]]:
    "The parts of the book with their modules and names."
    order = [page for page in pages() if page.module in public()]
    for part in dict.fromkeys(page.part for page in order):
        there = [page for page in order if page.part == part]
        yield {
            "name": part,
            "id": slug(part),
            "modules": [
                {
                    "name": page.module,
                    "page": page.title,
                    "book": UP + page.address,
                    "names": [brief(page.module, n) for n in public()[page.module]],
                }
                for page in there
            ],
        }


def brief(module: str, name: str) -> tuple[str, str]:
    "A name, and the first sentence about it."
    entry = modules()[module].entry(name)
    return code(name), prose((entry.sentences or [""])[0])


def index_page(today: str) -> str:
    lead = "Everything that `import ddpm_lit` gives, in the order of the book."
    text, table = body("api_index.html", groups=list(groups()))
    facts = dict(lead=words(lead), description=lead, contents=table, date=today)
    return framed(LIBRARY, text, after=made(order()[0]), **facts)


def command_page(today: str) -> str:
    lead = "Every verb of `ddpm-lit` and every flag, with its default."
    verbs = flags.verbs()
    for verb in verbs:
        verb["about"] = words(verb["about"])
        for group in verb["groups"]:
            group["about"] = words(group["about"])
            group["flags"] = [replace(f, about=words(f.about)) for f in group["flags"]]
    text, table = body("command.html", verbs=verbs, presets=flags.presets())
    facts = dict(lead=words(lead), description=lead, contents=table, date=today)
    return framed(COMMAND, text, before=made(order()[-1]), **facts)


def changes_page(today: str) -> str:
    lead = "What is new in each version."
    written = (ROOT / "CHANGELOG.md").read_text("utf-8").removeprefix("# Changelog")
    for page in pages():
        written = written.replace(f"nbs/{page.notebook}", CHANGES.root + page.address)
    html = str(mistune.html(written))
    html = re.sub("<h2>(.*?)</h2>", r'<h2 id="version-\1">\1</h2>', html)
    text, table = with_anchors(html)
    facts = dict(lead=lead, description=lead, contents=table, date=today)
    return framed(CHANGES, text, **facts)


def write(site: Path, today: str) -> dict[str, str]:
    "Write all pages of the reference. Their texts, by address."
    texts = {
        LIBRARY.address: index_page(today),
        COMMAND.address: command_page(today),
        CHANGES.address: changes_page(today),
    }
    for name in order():
        texts[made(name).address] = module_page(modules()[name], today)
    for address, text in texts.items():
        path = site / address
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return texts


if __name__ == "__main__":
    write(Path(sys.argv[1]), date.today().isoformat())
