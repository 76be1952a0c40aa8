"The frame of every page, and what stands in it: the doors above, the book at the left."

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from contents import ROOT, Page, pages

HERE = Path(__file__).resolve().parent
SITE = "https://ddpm-lit.github.io/ddpm_lit"
REPOSITORY = "https://github.com/ddpm-lit/ddpm_lit"
DOORS = [
    ("Read", "introduction.html"),
    ("Map", "map.html"),
    ("Install", "index.html#two-commands"),
    ("Reference", "reference/api/index.html"),
]
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Made:
    "A page that no notebook makes."

    address: str
    title: str
    part: str = "Reference"
    number: str = ""

    @property
    def root(self) -> str:
        return "../" * self.address.count("/")

    @property
    def short(self) -> str:
        return self.title


LOST = Made("404.html", "This page is not here", part="")
MAP = Made("map.html", "Map of the book", part="Start")
LIBRARY = Made("reference/api/index.html", "Library")
COMMAND = Made("reference/command.html", "Command")
CHANGES = Made("reference/changes.html", "Changelog")


def version() -> str:
    text = (ROOT / "ddpm_lit" / "__init__.py").read_text("utf-8")
    found = re.search(r'__version__ = "(.*)"', text)
    return found[1] if found else ""


def framed(page: Page | Made, body: str, **facts: Any) -> str:
    "A whole page: the text in its frame. What facts there are, page.html says."
    fonts = ["fonts/serif", "fonts/serif-italic", "fonts/sans", "fonts/code"]
    if facts.get("formulas"):
        fonts += ["katex/fonts/KaTeX_Main-Regular", "katex/fonts/KaTeX_Math-Italic"]
    known: dict[str, Any] = dict(
        fonts=fonts,
        kind="page",
        name=page.title,
        title=page.title,
        part=page.part,
        current=page.address,
        description=page.title,
        picture="images/card.png",
    )
    return TEMPLATES.get_template("page.html").render(
        known | facts,
        site=SITE,
        repository=REPOSITORY,
        address=page.address,
        root=facts.get("root", page.root),
        doors=DOORS,
        book=sidebar(page),
        version=version(),
        body=body,
    )


def sidebar(here: Page | Made) -> list[dict[str, Any]]:
    "The parts with their pages; that of the page is open."
    everything = [*pages(), MAP, LIBRARY, COMMAND, CHANGES]
    names = dict.fromkeys(page.part for page in everything)
    return [
        {
            "name": name,
            "open": name == here.part,
            "pages": [page for page in everything if page.part == name],
        }
        for name in names
    ]
