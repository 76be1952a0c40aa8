"""Runs pages from top to bottom and stores their results:

    python tests/execute.py posterior 2_sampling/01_ddpm ...

Figures are stored with two pixels for each one shown, in at most 256 colours."""

import io
import json
import sys
from base64 import b64decode, b64encode
from concurrent.futures import ProcessPoolExecutor

import nbformat
from book import NBS, NOTEBOOKS, name_of, read
from kernel import execute
from mutations import court
from nbdev.clean import nbdev_clean
from PIL import Image

SECONDS = NBS / "seconds.json"
FIGURES = "--InlineBackend.figure_formats=retina"


def fewer_colours(encoded: str) -> str:
    "A PNG with a palette, if that makes it smaller."
    image = Image.open(io.BytesIO(b64decode(encoded))).convert("RGB")
    made = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    small = b64encode(made.getvalue()).decode()
    return min(small, encoded.replace("\n", ""), key=len)


def note(page, seconds: float) -> None:
    "The processor time of a page, which its head on the site says."
    known = json.loads(SECONDS.read_text("utf-8")) if SECONDS.is_file() else {}
    known[name_of(page)] = max(1, round(seconds))
    order = {name_of(page): known.get(name_of(page)) for page in NOTEBOOKS}
    kept = {name: time for name, time in order.items() if time}
    SECONDS.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


def run(page, clerk: ProcessPoolExecutor) -> None:
    notebook = read(page)
    note(page, execute(notebook, page.parent, clerk, FIGURES))
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = fewer_colours(output.data["image/png"])
    nbformat.write(notebook, page)
    nbdev_clean(str(page))
    print(f"{name_of(page)}: {page.stat().st_size // 1000} kB", flush=True)


def main(names: list[str]) -> None:
    with court(1) as clerk:
        for page in NOTEBOOKS:
            if any(name in name_of(page) for name in names):
                run(page, clerk)


if __name__ == "__main__":
    main(sys.argv[1:])
