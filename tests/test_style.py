"The layout of the code: short lines, one statement in each, short exported cells."

import subprocess
import sys

import pytest
import style
from book import ROOT


@pytest.fixture(scope="module")
def now():
    return style.measured()


@pytest.mark.parametrize("kind", ["long lines", "crowded lines", "long cells"])
def test_layout(kind, now):
    allowed, found = style.excepted()[kind], now[kind]
    worse = {name: n for name, n in found.items() if n > allowed.get(name, 0)}
    assert not worse, f"{kind}: at most {style.COLUMNS} columns, {style.LINES} lines"
    mended = {name for name, n in allowed.items() if n > found.get(name, 0)}
    assert not mended, "run python tests/style.py: its list of exceptions can shrink"


def test_types():
    pytest.importorskip("mypy")
    allowed, found = style.excepted()["type errors"], style.type_errors()
    worse = {name: n for name, n in found.items() if n > allowed.get(name, 0)}
    assert not worse, f"more than before, run python -m mypy: {worse}"


def test_ruff_finds_nothing():
    "With the rules in ruff.toml, in modules, notebooks, tests and benchmarks."
    call = [sys.executable, "-m", "ruff", "check", "--no-cache", "--quiet", "."]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
