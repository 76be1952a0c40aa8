"""The layout of the code, measured. What is still to be mended is listed in
tests/style.json, which can only shrink: `python tests/style.py` strikes what was
mended."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec

from book import NOTEBOOKS, ROOT, code, name_of, read

FILE = ROOT / "tests" / "style.json"
COLUMNS = 88  # of a line of code
LINES = 40  # of an exported cell
SCRIPTS = sorted(
    path
    for folder in ("ddpm_lit", "tests", "benchmarks", "site")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "_modidx.py"  # made by nbdev, as the lists `__all__` are
    and "node_modules" not in path.parts
)
# made by nbdev: the list of names, and the promise in a page's title as a docstring
MADE = re.compile(r'^__all__ = \[.*?\]|\A""".*?"""', re.M | re.S)


def long_lines(text: str) -> int:
    return sum(len(line) > COLUMNS for line in MADE.sub("", text).splitlines())


def name_in(source: str) -> str:
    "What a cell is known by: the first public name that it defines, or else the first."
    found = [node.name for node in ast.parse(source).body if hasattr(node, "name")]
    return next((name for name in found if name[0] != "_"), found[0] if found else "")


def crowded() -> Counter:
    "Lines with more than one statement, by file; ruff reads notebooks too."
    call = "-m ruff check --select E701,E702,E703 --no-cache --output-format json"
    done = subprocess.run(
        [sys.executable, *call.split(), "."], cwd=ROOT, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    prefix = f"{ROOT.as_posix()}/"
    return Counter(fault["filename"].removeprefix(prefix) for fault in found)


def measured() -> dict[str, dict[str, int]]:
    "What is to be mended: how many long or crowded lines in a file, how long a cell."
    lines = {p.relative_to(ROOT).as_posix(): long_lines(p.read_text()) for p in SCRIPTS}
    cells = {}
    for page in NOTEBOOKS:
        written = [cell for cell in read(page).cells if cell.cell_type == "code"]
        lines[f"nbs/{name_of(page)}"] = sum(long_lines(code(c)) for c in written)
        for cell in written:
            length = len(code(cell).splitlines())
            if re.match(r"#\|\s*exports?\b", cell.source) and length > LINES:
                cells[f"{name_of(page)}: {name_in(code(cell))}"] = length
    return {
        "long lines": {name: n for name, n in lines.items() if n},
        "crowded lines": dict(sorted(crowded().items())),
        "long cells": cells,
    }


def type_errors() -> Counter:
    "What mypy finds, strictly (mypy.ini), by file."
    call = [sys.executable, "-m", "mypy", "--no-error-summary"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return Counter(re.findall(r"^([\w/]+\.py):\d+: error:", done.stdout, re.M))


def excepted() -> dict[str, dict[str, int]]:
    return json.loads(FILE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    allowed, now = excepted(), measured()
    now["type errors"] = type_errors() if find_spec("mypy") else allowed["type errors"]
    left = {
        kind: {
            name: min(n, now[kind][name])
            for name, n in names.items()
            if name in now[kind]
        }
        for kind, names in allowed.items()
    }
    text = json.dumps(left, indent=1, ensure_ascii=False)
    FILE.write_text(text + "\n", encoding="utf-8")
