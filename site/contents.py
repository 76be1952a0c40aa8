"""The order of the book, as `_quarto.yml` has it."""

import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Page:
    "A page of the book."

    notebook: str  # below nbs/, such as 1_mathematics/05_posterior.ipynb
    part: str  # such as "1 Mathematics"

    @property
    def address(self) -> str:
        "Where it is on the site: nbdev leaves the number of a file out."
        folder, _, name = self.notebook.rpartition("/")
        name = re.sub(r"^\d+[a-z]?_", "", name).replace(".ipynb", ".html")
        return f"{folder}/{name}" if folder else name

    @property
    def root(self) -> str:
        "The way from it to the root of the site."
        return "../" * self.address.count("/")

    @cached_property
    def _notebook(self) -> list[dict]:
        return json.loads((ROOT / "nbs" / self.notebook).read_text("utf-8"))["cells"]

    @cached_property
    def _cells(self) -> list[tuple[str, str]]:
        return [(cell["cell_type"], "".join(cell["source"])) for cell in self._notebook]

    @property
    def hidden(self) -> set[str]:
        "The functions and classes whose code JupyterLab folds, and so does the site."
        cells = (c for c in self._notebook if "jupyter" in c["metadata"])
        shut = (c for c in cells if c["metadata"]["jupyter"].get("source_hidden"))
        found = (
            re.findall(r"(?m)^(?:def|class) (\w+)", "".join(c["source"])) for c in shut
        )
        return {name for names in found for name in names}

    @property
    def cells(self) -> list[str]:
        "The sources of its cells."
        return [source for _, source in self._cells]

    @property
    def prose(self) -> str:
        "Its text without its code."
        kept = (source for kind, source in self._cells if kind == "markdown")
        return "\n\n".join(kept)

    @property
    def module(self) -> str:
        "The module that it exports; empty for none."
        text = "\n".join(self.cells[:3])
        found = re.search(r"^#\|\s*default_exp (\S+)", text, re.M)
        return found[1] if found else ""

    @property
    def needs(self) -> list["Page"]:
        "The numbered pages before it whose modules it imports."
        before = pages()[: pages().index(self)]
        names = re.findall(r"^from ddpm_lit\.(\w+) import", "\n".join(self.cells), re.M)
        return [page for page in before if page.module in names and page.number]

    @property
    def title(self) -> str:
        "Its heading, with its number."
        lines = "\n".join(self.cells[:2]).splitlines()
        return next(line[2:] for line in lines if line.startswith("# "))

    @property
    def number(self) -> str:
        "Such as 1.5; empty for a page without."
        found = re.match(r"\d+\.\d+", self.title)
        return found[0] if found else ""

    @property
    def short(self) -> str:
        "The title without its number."
        if self.notebook == "index.ipynb":
            return "Home"
        return self.title.removeprefix(self.number).strip()


@cache
def pages() -> list[Page]:
    "All pages, in reading order."
    config = yaml.safe_load((ROOT / "_quarto.yml").read_text("utf-8"))
    parts = config["website"]["sidebar"]["contents"]
    return [Page(path, part["section"]) for part in parts for path in part["contents"]]
