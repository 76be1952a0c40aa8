"""Examples of the reference: site/examples/<module>.py has a cell for each name, which
runs by itself and ends in comments that say what it prints. `python site/example.py`
runs them and writes these comments again."""

import contextlib
import io
import os
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "examples"
ANSWER = "# -> "


@dataclass(frozen=True)
class Example:
    "What is typed and what it prints."

    name: str  # such as Gaussian or Run.draw
    code: str
    output: str

    @property
    def text(self) -> str:
        answers = "".join(f"{ANSWER}{line}\n" for line in self.output.splitlines())
        return f"# %% {self.name}\n{self.code}\n{answers}"


def read(path: Path) -> list[Example]:
    "The examples of a file."
    found = []
    for cell in re.split(r"^# %% ", path.read_text("utf-8"), flags=re.M)[1:]:
        name, *lines = cell.strip().splitlines()
        code = [line for line in lines if not line.startswith(ANSWER)]
        output = [line.removeprefix(ANSWER) for line in lines if line not in code]
        found.append(Example(name, "\n".join(code).strip(), "\n".join(output)))
    return found


def of(module: str) -> dict[str, Example]:
    "Those for names of a module."
    path = FOLDER / f"{module.replace('.', '_')}.py"
    return {one.name: one for one in read(path)} if path.is_file() else {}


def printed(example: Example) -> str:
    "What it prints, run in an empty folder."
    out, here = io.StringIO(), os.getcwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(out):
        os.chdir(folder)
        try:
            exec(compile(example.code, example.name, "exec"), {"__name__": "example"})
        finally:
            os.chdir(here)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def write(path: Path) -> None:
    "Run the examples of a file and write down what they print."
    made = [replace(one, output=printed(one)) for one in read(path)]
    path.write_text("\n".join(one.text for one in made), "utf-8")


if __name__ == "__main__":
    chosen = [FOLDER / f"{name}.py" for name in sys.argv[1:]]
    for path in chosen or sorted(FOLDER.glob("*.py")):
        write(path)
        print(path.name)
