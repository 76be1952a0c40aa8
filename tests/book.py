"What several tests want to know about the notebooks and modules: names, order, cells."

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NBS, PACKAGE = ROOT / "nbs", ROOT / "ddpm_lit"
NOTEBOOKS = sorted(
    p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
# those in the folders of the parts, in reading order
NUMBERED = [p for p in NOTEBOOKS if p.parent.name[0].isdigit()]
# all that export a module; what a function says to bad input every module may import
EXPORTING = [NBS / "reference" / "refusals.ipynb", *NUMBERED]


def name_of(path: Path) -> str:
    """A page's place in the book, as links and the ledger write it:
    2_sampling/02_ddim.ipynb."""
    return path.relative_to(NBS).as_posix()


def part_of(path: Path) -> int:
    "The number of the part that a page belongs to."
    return int(path.parent.name[0])


def read(path: Path):
    return nbformat.read(path, as_version=4)


def module_of(path: Path) -> str | None:
    "The module that a notebook exports to, if it does."
    for cell in read(path).cells:
        if cell.cell_type == "code" and (
            m := re.match(r"#\|\s*default_exp\s+(\S+)", cell.source)
        ):
            return m[1]
    return None


def modules() -> dict[str, int]:
    """Each exported module with the place of its page in reading order: first the
    refusals, then the parts in turn, and within each its pages."""
    return {m: place for place, p in enumerate(EXPORTING) if (m := module_of(p))}


def code(cell) -> str:
    "The Python of a code cell, without Quarto's and nbdev's lines."
    return "\n".join(
        line for line in cell.source.splitlines() if not line.startswith("#|")
    )
