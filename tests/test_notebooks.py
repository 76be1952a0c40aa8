"""Every notebook runs from top to bottom, its stored outputs are fit to publish, and it
has the shape that readers rely on."""

import ast
import re
import subprocess
from collections import Counter

import kernel
import ledger
import pytest
import yaml
from book import NOTEBOOKS, NUMBERED, ROOT, code, module_of, name_of, part_of, read

MACHINE_PATH = re.compile(
    r"(?<![\w.~])/(home|root|tmp|work|Users|private|var/folders|opt|mnt|workspace)/\w"
    r"|[A-Z]:\\\\?Users|site-packages|0x[0-9a-f]{9,}"
)
# seconds of processor time for one notebook, beside the import of heavy libraries: a
# busy machine does not make a page slow
LIMIT = 120
MATHEMATICS = ledger.PAGES
# made from the ledger or from other pages: what they store must be what they show
MADE = [
    p for p in NOTEBOOKS if p.stem in ("index", "equations", "pitfalls", "bibliography")
]
# their tables are read from results/: what they store must be what the files say
STUDIES = [
    p
    for p in NOTEBOOKS
    if name_of(p) in ("8_cases/02_mnist.ipynb", "8_cases/03_faces.ipynb")
]
SPENT: dict[str, float] = {}


def names(paths):
    return [name_of(p) for p in paths]


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=names(paths))


def outputs(notebook):
    for i, cell in enumerate(notebook.cells):
        for out in cell.get("outputs", []):
            yield i, out


def text_of(out) -> str:
    data = out.get("data", {})
    return "\n".join(
        v
        for k, v in [("text", out.get("text", "")), *sorted(data.items())]
        if isinstance(v, str) and not k.startswith("image/")
    )


def shown(notebook) -> list:
    return [sorted(out.get("data", {}).items()) for _, out in outputs(notebook)]


def words(notebook) -> list[str]:
    return [text_of(out) for _, out in outputs(notebook)]


@each(NOTEBOOKS)
def test_runs_from_top_to_bottom(path, clerk):
    notebook = ledger.with_ear(read(path)) if path in MATHEMATICS else read(path)
    SPENT[name_of(path)] = kernel.execute(notebook, path.parent, clerk)
    if path in MATHEMATICS:
        assert ledger.heard(notebook) == ledger.load()[name_of(path)], (
            "the page claims something else than nbs/ledger.json says: run python "
            "tests/ledger.py"
        )
    if path in MADE:
        assert shown(notebook) == shown(read(path)), (
            "run this page again: what it is made from has changed"
        )
    if path in STUDIES:
        assert words(notebook) == words(read(path)), (
            "run this page again: its result file has changed"
        )
    noise = [
        (i, out.get("text", out.get("evalue", ""))[:300])
        for i, out in outputs(notebook)
        if out.output_type == "error" or out.get("name") == "stderr"
    ]
    assert not noise, f"cells wrote to stderr: {noise}"
    assert SPENT[name_of(path)] < LIMIT
    stored, now = {i for i, _ in outputs(read(path))}, {i for i, _ in outputs(notebook)}
    assert stored == now, (
        f"cells {sorted(stored ^ now)} have an output now and none stored, or the "
        "other way round"
    )


def test_running_leaves_the_tree_as_it_was():
    "Whatever notebooks write goes to a temporary folder."
    strays = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard", "nbs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert not [
        name for name in strays if not name.endswith((".ipynb", ".css", ".yml"))
    ], strays


def test_time_of_all_notebooks(capsys):
    if len(SPENT) < len(NOTEBOOKS):
        pytest.skip("not all notebooks were run")
    with capsys.disabled():
        print()
        for name, seconds in SPENT.items():
            print(f"{seconds:6.1f} s  {name}")
        print(f"{sum(SPENT.values()):6.1f} s  together")
    assert sum(SPENT.values()) <= 20 * len(NOTEBOOKS), (
        "twenty seconds a page, on average, is what a reader is promised"
    )


@each(NOTEBOOKS)
def test_every_figure_has_its_picture(path):
    for i, cell in enumerate(read(path).cells):
        if cell.cell_type != "code" or "#| fig-cap:" not in cell.source:
            continue
        assert any(
            {"image/png", "image/jpeg"} & set(out.get("data", {}))
            for out in cell.outputs
        ), f"cell {i} has a caption and no picture: run the notebook"


@each(NOTEBOOKS)
def test_stored_outputs_are_fit_to_publish(path):
    notebook = read(path)
    for i, out in outputs(notebook):
        assert out.output_type != "error" and out.get("name") != "stderr", (
            f"cell {i} keeps an error"
        )
        assert not (m := MACHINE_PATH.search(text_of(out))), (
            f"cell {i} shows a machine path or address: {m[0]}"
        )
        assert "application/vnd.jupyter.widget-view+json" not in out.get("data", {}), (
            f"cell {i} keeps a widget"
        )
    assert all(
        cell.get("execution_count") is None
        for cell in notebook.cells
        if cell.cell_type == "code"
    ), "execution counts are kept: run nbdev_clean"
    assert not any(MACHINE_PATH.search(cell.source) for cell in notebook.cells), (
        "a cell has a machine path"
    )
    # faces have colours
    assert path.stat().st_size < 600_000
    assert (
        set(notebook.metadata) <= {"kernelspec", "language_info", "jupytext"}
        and notebook.metadata.get("kernelspec", {}).get("name", "python3") == "python3"
    )


@each(NUMBERED)
def test_starts_with_its_module_and_its_promise(path):
    cells = read(path).cells
    module = module_of(path)
    if module:
        assert (
            cells[0].cell_type == "code"
            and cells[0].source.strip() == f"#| default_exp {module}"
        )
    title = cells[1 if module else 0]
    assert title.cell_type == "markdown" and re.match(
        r"# \S[^\n]*\n\n> \S", title.source
    ), "the title cell is '# Title', an empty line and '> promise'"
    assert title.source.startswith(f"# {part_of(path)}.{int(path.name[:2])} "), (
        "a title begins with the number of the page in its part"
    )


def test_every_page_but_the_case_studies_exports_one_module():
    assert all(module_of(p) for p in NUMBERED if p.parent.name != "8_cases")
    assert not any(
        count > 1 for count in Counter(filter(None, map(module_of, NUMBERED))).values()
    )


@each(NUMBERED)
def test_ends_with_summary_and_exercises(path):
    cells = read(path).cells
    heads = [
        c.source.strip()
        if c.cell_type == "markdown" and c.source.startswith("## ")
        else ""
        for c in cells
    ]
    assert [h for h in heads if h][-2:] == ["## Summary", "## Exercises"]
    summary, exercises = (
        cells[heads.index("## Summary") + 1].source,
        "\n".join(c.source for c in cells[heads.index("## Exercises") + 1 :]),
    )
    assert len(re.findall(r"^- ", summary, re.M)) == 3, "the summary has three bullets"
    assert len(re.findall(r"^\d\. ", exercises, re.M)) in (2, 3), (
        "two or three exercises"
    )


@each(NUMBERED)
def test_imports_and_headings_have_cells_of_their_own(path):
    for i, cell in enumerate(read(path).cells):
        if cell.cell_type == "markdown":
            lines = [
                line
                for line in re.sub(
                    r"```.*?```", "", cell.source, flags=re.S
                ).splitlines()
                if line.strip()
            ]
            if any(re.match(r"#{2,6} ", line) for line in lines):
                assert len(lines) == 1, f"cell {i}: a heading is not alone in its cell"
        elif cell.cell_type == "code":
            body = ast.parse(code(cell)).body
            imports = [isinstance(node, (ast.Import, ast.ImportFrom)) for node in body]
            others = [
                node
                for node, is_import in zip(body, imports)
                if not is_import and not ast.unparse(node).startswith("plt.style.use(")
            ]
            if any(imports):
                assert not others, (
                    f"cell {i} mixes imports with `{ast.unparse(others[0])[:60]}`"
                )


def called(notebook) -> Counter:
    trees = [ast.parse(code(c)) for c in notebook.cells if c.cell_type == "code"]
    return Counter(
        n.func.id
        for tree in trees
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    )


@each(MATHEMATICS)
def test_mathematics_is_proved_controlled_and_tied(path):
    calls = called(read(path))
    for claim in ("prove", "refute", "ties"):
        assert calls[claim], f"no `{claim}`"


@each([p for p in NUMBERED if p not in MATHEMATICS])
def test_other_pages_assert_something(path):
    trees = [ast.parse(code(c)) for c in read(path).cells if c.cell_type == "code"]
    assert (
        any(isinstance(node, ast.Assert) for tree in trees for node in ast.walk(tree))
        or called(read(path))["prove"]
    )


@each(NUMBERED)
def test_figures_have_labels_captions_and_references(path):
    notebook, labels = read(path), []
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        label, caption = (
            re.search(r"^#\|\s*label:\s*(\S+)", cell.source, re.M),
            re.search(r"^#\|\s*fig-cap:\s*\"?.{15,}", cell.source, re.M),
        )
        if any(
            {"image/png", "image/jpeg"} & set(out.get("data", {}))
            for out in cell.outputs
        ):
            assert label and label[1].startswith("fig-") and caption, (
                f"cell {i} shows a picture without `#| label: fig-...` and `#| "
                "fig-cap: ...`"
            )
        if label:
            labels.append(label[1])
    assert labels, "every page has a picture that shows its claim"
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    wanted = set(re.findall(r"@(fig-[\w-]*\w)", prose))
    drawings = set(re.findall(r"\{#(fig-[\w-]+)", prose))
    assert not set(labels) - wanted, "figures that the text does not refer to"
    assert not wanted - set(labels) - drawings, "references without a figure"


@each(NUMBERED)
def test_an_exported_cell_has_one_public_name(path):
    """The site documents what a cell exports below it: with two functions in a cell,
    both below the second, and in the wrong order."""
    for cell in read(path).cells:
        if cell.cell_type != "code" or not re.match(r"#\|\s*exports?\b", cell.source):
            continue
        names = [
            node.name
            for node in ast.parse(cell.source).body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
            and not node.name.startswith("_")
        ]
        assert len(names) < 2, f"one cell exports {', '.join(names)}"


def test_labels_are_unique_in_the_book():
    labels = Counter(
        m
        for p in NOTEBOOKS
        for c in read(p).cells
        if c.cell_type == "code"
        for m in re.findall(r"^#\|\s*label:\s*(\S+)", c.source, re.M)
    )
    assert not [label for label, n in labels.items() if n > 1]


def test_pages_are_numbered_without_a_gap():
    for part in {p.parent for p in NUMBERED}:
        numbers = [int(p.name[:2]) for p in NUMBERED if p.parent == part]
        assert numbers == list(range(1, len(numbers) + 1)), f"{part.name}: {numbers}"


def test_the_sidebar_lists_every_notebook_in_reading_order():
    def pages(node):
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            yield from pages(node.get("contents", []))
        else:
            for item in node:
                yield from pages(item)

    sidebar = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))[
        "website"
    ]["sidebar"]
    assert list(pages(sidebar)) == [
        "index.ipynb",
        "introduction.ipynb",
        *names(NUMBERED),
        "reference/equations.ipynb",
        "reference/pitfalls.ipynb",
        "reference/names.ipynb",
        "reference/glossary.ipynb",
        "reference/bibliography.ipynb",
        "reference/refusals.ipynb",
    ]


@each(NOTEBOOKS)
def test_links_between_pages_lead_somewhere(path):
    prose = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    targets = [
        t.split("#")[0]
        for t in re.findall(r"\]\(([^)\s]+)\)", prose)
        if not re.match(r"[a-z]+:|#", t)
    ]
    assert not [t for t in targets if not (path.parent / t).exists()]


@each(NOTEBOOKS)
def test_prose_leaves_out_no_step(path):
    prose = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    found = re.findall(
        r"\b(obviously|clearly,|trivially|it is easy to see|simply|of course)\b",
        prose,
        re.I,
    )
    assert not found, f"words that stand for a step left out: {found}"
