"What several tests want to know about the notebooks and modules: names, order, cells."
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NBS, PACKAGE = ROOT / "nbs", ROOT / "ddpm_lit"
NOTEBOOKS = sorted(NBS.glob("*.ipynb"))
NUMBERED = [p for p in NOTEBOOKS if p.name[0].isdigit()]


def read(path: Path): return nbformat.read(path, as_version=4)


def module_of(path: Path) -> str | None:
    "The module that a notebook exports to, if it does."
    for cell in read(path).cells:
        if cell.cell_type == "code" and (m := re.match(r"#\|\s*default_exp\s+(\S+)", cell.source)): return m[1]
    return None


def modules() -> dict[str, int]:
    "Each exported module with the place of its page in reading order: 13b comes after 13 and before 14."
    return {m: place for place, p in enumerate(NUMBERED) if (m := module_of(p))}


def code(cell) -> str:
    "The Python of a code cell, without Quarto's and nbdev's lines."
    return "\n".join(line for line in cell.source.splitlines() if not line.startswith("#|"))
