"""The ledger, the pages that are made from it, and that no exported formula stands
unproved. (That the ledger is what the pages claim is compared where they are run, in
test_notebooks.)"""

import ast
import re
from collections import Counter

import ledger
import website
import pytest
from book import NOTEBOOKS, PACKAGE, module_of, name_of, read
from ddpm_lit import proof

LEDGER = ledger.load()
TIED = {
    claim["function"].split(".")[0]
    for claims in LEDGER.values()
    for claim in claims
    if claim["kind"] == "tied"
}
NOT_FORMULAS = {  # what the first two parts export besides formulas
    "check_times": "looks at an argument",
    "is_integer": "looks at an argument",
    "readable": "looks at an argument",
    "check_steps": "looks at an argument",
    "check_shape": "looks at two arguments",
    "AlphaBarTable": "numbers that were checked, and looking them up",
    "check_spacing": "looks at arguments",
    "given_noise": "looks at an argument",
    "at_least_float32": "changes a type",
    "expand": "changes a shape",
    "float64": "changes a type",
    "draw_noise": "draws random numbers; their moments are checked",
    "Prediction": "a pair of tensors",
    "Step": "a record of four values",
    "time_steps": "a list of whole numbers; checked against the published formulas",
    "time_pairs": "that list in pairs",
    "logsnr_times": "a list of whole numbers; checked for every number of steps",
    "Stream": "names for whole numbers",
    "keyed_seed": "hashes whole numbers",
    "keyed_generator": "a generator with that seed",
    "Model": "how a network is called",
    "Denoiser": "asks the network, decodes and clips; the last two are tied",
    "Sampler": "what a sampler has",
    "check_noise_free": "looks at a sampler",
    "sample_steps": "the loop; checked against the exact recursion",
    "sample": "the last of the loop",
    "trajectory": "picks steps out of a walk",
    "stack_steps": "puts images in a row",
    "between": "a row of mixtures; the mixtures are tied",
    "grid_between": "a grid of mixtures",
    "interpolate": "encoding, mixing and decoding in turn, each of them tied",
    "SubWalk": "a part of another sampler's walk; its steps are that sampler's",
    "sample_with_shared_start": "two parts of a walk in turn; checked",
    "inpaint_steps": (
        "the loop around `InpaintingSampler` and `noise_up`, which are tied; checked "
        "against the exact conditional"
    ),
    "inpaint": "the last of that loop",
}


def public(module: str) -> list[str]:
    "What the module exports under a name without underscore: functions and classes."
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    return [
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
    ]


EXPORTED = {name: page for page in ledger.PAGES[1:] for name in public(module_of(page))}


def test_every_page_of_mathematics_is_in_the_ledger():
    assert list(LEDGER) == [name_of(p) for p in ledger.PAGES], (
        "run python tests/ledger.py"
    )


@pytest.mark.parametrize("name", EXPORTED)
def test_exported_formula_is_tied_to_a_proof(name):
    if name in NOT_FORMULAS:
        assert name not in TIED, f"{name} is tied: strike it from NOT_FORMULAS"
    else:
        assert name in TIED, (
            f"{name} of {EXPORTED[name].name} implements a formula that no proof ties"
        )


def test_only_what_is_exported_is_excepted():
    assert set(NOT_FORMULAS) <= set(EXPORTED)


@pytest.mark.parametrize("page", LEDGER)
def test_names_of_claims_are_unique_on_a_page(page):
    twice = [
        claim
        for claim, n in Counter((c["kind"], c["name"]) for c in LEDGER[page]).items()
        if n > 1
    ]
    assert not twice


def shown(path) -> str:
    "Prose and stored Markdown outputs of a page."
    cells = read(path).cells
    made = [
        out["data"]["text/markdown"]
        for c in cells
        if c.cell_type == "code"
        for out in c.outputs
        if "text/markdown" in out.get("data", {})
    ]
    return "\n".join(
        [c.source for c in cells if c.cell_type == "markdown"]
        + ["".join(m) for m in made]
    )


ANCHORS = {p: website.anchors(p) for p in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_links_into_a_page_find_their_heading(path):
    links = re.findall(r"\]\(([\w./-]+\.ipynb)(?:#([^)\s]+))?\)", shown(path))
    targets = [((path.parent / page).resolve(), anchor) for page, anchor in links]
    assert not [
        f"{page}#{anchor}"
        for page, anchor in targets
        if page not in ANCHORS or anchor and anchor not in ANCHORS[page]
    ]


def test_the_ear_hears_where_a_claim_is_made():
    claims = LEDGER["1_mathematics/01_notation.ipynb"]
    heard = [(c["section"], c["kind"], c.get("case")) for c in claims]
    more = "Evidence: what is proved in another way, and what is refused"
    assert heard == [
        ("`prove`", "proved", None),
        (more, "proved", None),
        (more, "by definition", None),
        (more, "proved", None),
        (more, "by definition", None),
        (more, "special case", "three steps"),
        (more, "proved", None),
        ("`refute`", "refuted", None),
        ("`checks`", "checked", None),
        ("Evidence: random numbers, and a check that fails", "checked", None),
        ("`ties`", "tied", None),
    ]
    assert claims[-1]["function"] == "stride_noise"


def test_claims_are_counted_by_kind_without_the_examples():
    counts = ledger.counts(LEDGER)
    examples = LEDGER["1_mathematics/01_notation.ipynb"]
    assert counts.total() + len(examples) == sum(map(len, LEDGER.values()))
    assert set(counts) <= set(proof._MARKS)
