"""The ledger: every claim of the mathematics pages, in the order in which it is made.
`python tests/ledger.py [part of a name ...]` runs the pages and writes
nbs/ledger.json.

The equation map is made from that file. A page is run with an ear in it: a cell
before the first that counts the claims after each cell, and one after the last that
prints them. So a claim is known with the section of the page in which it stands."""

import json
import os
import re
import sys
from collections import Counter

import nbformat
from book import NBS, NUMBERED, name_of, part_of, read
from kernel import execute
from mutations import court

FILE = NBS / "ledger.json"
PAGES = [p for p in NUMBERED if part_of(p) <= 2]  # mathematics and sampling
FIRST = """def _ear():
    from ddpm_lit import proof
    shell, counts = get_ipython(), []
    def claims():  # the page on notation makes its own
        return shell.user_ns.get("LEDGER", proof.LEDGER)
    shell.events.register("post_run_cell", lambda result: counts.append(len(claims())))
    return counts, claims
_counts, _claims = _ear()"""
LAST = (
    "import json\nprint(json.dumps([_counts, [[c.kind, c.name, c.function, c.case, "
    "c.proof] for c in _claims()]]))"
)


def with_ear(notebook):
    "The notebook with the two cells added, to be executed."
    notebook.cells = [
        nbformat.v4.new_code_cell(FIRST),
        *notebook.cells,
        nbformat.v4.new_code_cell(LAST),
    ]
    return notebook


def heard(notebook) -> list[dict]:
    """The claims of a notebook that was executed with its ear; the two cells are taken
    out again."""
    _, *cells, last = notebook.cells
    notebook.cells = cells
    counts, claims = json.loads(last.outputs[-1]["text"])
    ran = [
        i
        for i, cell in enumerate(cells)
        if cell.cell_type == "code" and cell.source.strip()
    ]
    counts = counts[-len(ran) :]
    heading, section = "", {}
    for i, cell in enumerate(cells):
        if cell.cell_type == "markdown" and (m := re.match(r"##+ (.+)", cell.source)):
            heading = m[1].strip()
        section[i] = heading
    made_in = [
        next(i for i, count in zip(ran, counts) if n < count)
        for n in range(len(claims))
    ]
    return [
        {"kind": kind, "name": name, "function": function, "section": section[i]}
        | ({"case": case} if case else {})  # what a special case is restricted to
        | ({"proof": proof} if proof not in ("", name) else {})  # what is tied
        for (kind, name, function, case, proof), i in zip(claims, made_in)
    ]


def counts(ledger: dict[str, list[dict]]) -> Counter:
    "How many claims there are of each kind; page 1.1 shows the kinds, it claims none."
    pages = (claims for page, claims in ledger.items() if page != name_of(PAGES[0]))
    return Counter(claim["kind"] for claims in pages for claim in claims)


def slug(heading: str) -> str:
    "The anchor that the site gives to a heading."
    kept = re.sub(r"[^\w\s.-]", "", heading.lower())
    return re.sub(r"^[^a-zα-ωa-ž]+", "", re.sub(r"\s+", "-", kept.strip()))


def run(path, clerk) -> list[dict]:
    notebook = with_ear(read(path))
    execute(notebook, path.parent, clerk)
    return heard(notebook)


def load() -> dict[str, list[dict]]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def written(ledger: dict) -> str:
    "One claim a line, so that a change reads well in a diff."
    pages = (
        f"{json.dumps(page)}: [\n"
        + ",\n".join("  " + json.dumps(claim, ensure_ascii=False) for claim in claims)
        + "\n]"
        for page, claims in ledger.items()
    )
    return "{\n" + ",\n".join(pages) + "\n}\n"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ledger, clerk = load() if FILE.exists() else {}, court(1)
    for page in PAGES:
        if sys.argv[1:] and not any(part in name_of(page) for part in sys.argv[1:]):
            continue
        ledger[name_of(page)] = run(page, clerk)
        print(name_of(page), len(ledger[name_of(page)]), flush=True)
    print(*(f"{n} {kind}" for kind, n in counts(ledger).most_common()), sep=", ")
    FILE.write_text(
        written({name: ledger[name] for name in sorted(ledger)}), encoding="utf-8"
    )
