"""Write README.md from nbs/index.ipynb: `python tests/readme.py` (a test compares the two).

The rule: markdown cells as they are, code cells as fenced Python without their `#|` lines, text outputs as fenced text,
cells with `#| hide` not at all. Links are written for the notebook's folder and turned to the repository's root. (nbdev's own
`nbdev_readme` needs Quarto, and its result depends on Quarto's version.)"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def at_root(target: str) -> str:
    "A link that is valid in nbs/, as seen from the folder above."
    if re.match(r"[a-z]+:|#|/", target):
        return target
    return target[3:] if target.startswith("../") else f"nbs/{target}"


def links_at_root(text: str) -> str:
    text = re.sub(r"\]\(([^)\s]+)", lambda m: f"]({at_root(m[1])}", text)
    return re.sub(r'(src|href)="([^"]+)"', lambda m: f'{m[1]}="{at_root(m[2])}"', text)


def output(out: dict) -> str:
    "One output of a cell as markdown."
    data = out.get("data", {})
    if any(kind.startswith("image/") for kind in data):
        raise SystemExit(
            "index.ipynb shows a picture as an output: save it in results/ and "
            "link it in a markdown cell"
        )
    if "text/markdown" in data:
        return links_at_root("".join(data["text/markdown"]).strip())
    text = "".join(out.get("text", data.get("text/plain", ""))).rstrip()
    return f"```text\n{text}\n```" if text else ""


def blocks(notebook: dict):
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).strip()
        directives = [
            line[2:].strip() for line in source.splitlines() if line.startswith("#|")
        ]
        if (
            cell["cell_type"] == "raw"
            or "hide" in directives
            or any(d.startswith("default_exp") for d in directives)
        ):
            continue
        if cell["cell_type"] == "markdown":
            yield links_at_root(source)
            continue
        code = "\n".join(
            line for line in source.splitlines() if not line.startswith("#|")
        ).strip()
        if code and "echo: false" not in directives:
            yield f"```python\n{code}\n```"
        yield from (output(out) for out in cell["outputs"])


def readme(path: Path = ROOT / "nbs" / "index.ipynb") -> str:
    "The text of README.md."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return (
        (
            "<!-- Written from nbs/index.ipynb by tests/readme.py: edit that notebook. "
            "-->\n\n"
        )
        + "\n\n".join(filter(None, blocks(notebook)))
        + "\n"
    )


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
