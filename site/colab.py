"""Copies of the notebooks for Google Colab, each with a first cell that installs the
book where it runs: `python site/colab.py FOLDER`. The workflow keeps them in the
branch `colab`, to which "Open in Colab" leads."""

import json
import sys
from pathlib import Path

from contents import ROOT, pages
from frame import REPOSITORY

INSTALL = """# Colab: fetch the book and install it, then run the cells below
!git clone --quiet --depth 1 {repository} /content/ddpm_lit
%cd -q /content/ddpm_lit/nbs/{folder}
%pip install --quiet -e '/content/ddpm_lit[notebooks]'"""


def first_cell(notebook: str) -> dict:
    text = INSTALL.format(repository=REPOSITORY, folder=notebook.rpartition("/")[0])
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": "install",
        "metadata": {},
        "outputs": [],
        "source": text.splitlines(keepends=True),
    }


def write(folder: Path) -> None:
    for page in pages():
        text = (ROOT / "nbs" / page.notebook).read_text("utf-8")
        notebook = json.loads(text)
        notebook["cells"].insert(0, first_cell(page.notebook))
        path = folder / "nbs" / page.notebook
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
