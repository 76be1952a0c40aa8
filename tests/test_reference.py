"""The pages of the reference that readers look things up in: the bibliography has what
the pages link to, the glossary leads to pages that use its words, and the names that
others are translated into exist."""

import ast
import dataclasses
import importlib
import inspect
import re
from functools import cache

import pytest
import website
from book import NBS, NOTEBOOKS, code, modules, name_of
from book import read as read_now

REFERENCE = NBS / "reference"
OURS = "https://github.com/ddpm-lit/ddpm_lit"  # this project's own address
read = cache(read_now)
LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def prose(page) -> str:
    return "\n".join(c.source for c in read(page).cells if c.cell_type == "markdown")


@cache
def everything(page) -> str:
    return "\n".join(cell.source for cell in read(page).cells)


def items(text: str) -> list[str]:
    return [line[2:] for line in text.splitlines() if line.startswith("- ")]


def target(link: str):
    "The page that a link of the reference leads to."
    return (REFERENCE / link.split("#")[0]).resolve()


# The bibliography

BIBLIOGRAPHY = REFERENCE / "bibliography.ipynb"
OUTSIDE = {
    name_of(page): {link for link in LINK.findall(prose(page)) if "://" in link}
    for page in NOTEBOOKS
    if page != BIBLIOGRAPHY
}


def below(link: str, address: str) -> bool:
    "Whether a link leads to an address, or to a page below it."
    link, address = (text.split("#")[0].rstrip("/") for text in (link, address))
    return link == address or link.startswith(address + "/")


def shown() -> list[list[str]]:
    "The entries of the bibliography as it is stored, section by section."
    return [
        items(output.data["text/markdown"])
        for cell in read(BIBLIOGRAPHY).cells
        for output in cell.get("outputs", [])
        if "text/markdown" in output.data
    ]


def address(entry: str) -> str:
    return next(link for link in LINK.findall(entry) if "://" in link)


ENTRIES = [entry for section in shown() for entry in section]


def test_every_link_to_the_outside_is_in_the_bibliography():
    known = [OURS, *map(address, ENTRIES)]
    missing = {
        link: page
        for page, links in OUTSIDE.items()
        for link in links
        if not any(below(link, place) for place in known)
    }
    assert not missing, "add it there, and run python tests/execute.py bibliography"


@pytest.mark.parametrize("entry", ENTRIES, ids=address)
def test_an_entry_lists_the_pages_that_use_it(entry):
    listed = {name_of(target(x)) for x in LINK.findall(entry) if "://" not in x}
    using = {
        page
        for page, links in OUTSIDE.items()
        if any(below(link, address(entry)) for link in links)
    }
    assert listed and listed == using, "run python tests/execute.py bibliography"


def test_papers_are_listed_once_with_a_year_and_in_order():
    papers = shown()[0]
    found = [re.match(r"(.+), (\d{4})\. \*(.+)\.\* \[", entry) for entry in papers]
    assert all(found), [e for e, match in zip(papers, found) if not match]
    names = [re.sub("van den |[^a-z ]", "", m[1].lower()) for m in found]
    order = [(name, match[2]) for name, match in zip(names, found)]
    assert order == sorted(order)
    places = list(map(address, ENTRIES))
    assert len(places) == len(set(places))
    for place in places:
        assert not any(below(other, place) for other in places if other != place)


# The glossary

GLOSSARY = REFERENCE / "glossary.ipynb"
TERMS = items(prose(GLOSSARY))
CHINESE = re.compile(r' \(<span lang="zh">([^<]*[\u4e00-\u9fff][^<]*)</span>\): ')


def names_of(entry: str) -> list[str]:
    "A term and its other names."
    return re.findall(r"\*\*(.+?)\*\*", entry)


def plain(text: str) -> str:
    "Without the difference of hyphens, spaces and capitals."
    return re.sub(r"[-–\s]+", " ", text.lower())


def letters(term: str) -> str:
    "As a dictionary sorts it."
    return re.sub("[^a-z ]", "", plain(term).replace("é", "e"))


def formula(text: str) -> str:
    return re.sub(r"[\s{}]|\\text", "", text)


def said(entry: str, text: str) -> list[str]:
    """By which of its words an entry is met in a text: a name, a symbol, what stands in
    italics, or a name of the package."""
    head, sentence = CHINESE.split(entry)[::2]
    phrases = names_of(head) + re.findall(r"\*([^*]+)\*", sentence)
    symbols = [x for x in re.findall(r"\$(.+?)\$", head) if len(x) > 2]
    return [
        *(x for x in phrases if plain(x) in plain(text)),
        *(x for x in symbols if formula(x) in formula(text)),
        *(x for x in re.findall("`(.+?)`", sentence) if re.search(rf"\b{x}\b", text)),
    ]


@pytest.mark.parametrize("entry", TERMS, ids=lambda entry: names_of(entry)[0])
def test_a_term_occurs_on_the_pages_that_it_names(entry):
    body, _, arrow = entry.partition(" → ")
    assert len(CHINESE.findall(body)) == 1 and body.endswith(".")
    links = re.findall(r"\[(.+?)\]\((.+?)\)", arrow)
    assert links, "where is it explained?"
    for label, link in links:
        page = target(link)
        assert page in NOTEBOOKS, link
        if label[0].isdigit():
            assert prose(page).startswith(f"# {label} "), "another number"
        anchor = link.partition("#")[2]
        assert not anchor or anchor in website.anchors(page)
        assert said(body, everything(page)), f"{name_of(page)} does not know this word"


def test_most_terms_occur_by_their_own_name():
    own = [
        any(
            plain(name) in plain(everything(target(link)))
            for name in names_of(entry)
            for link in LINK.findall(entry.partition(" → ")[2])
        )
        for entry in TERMS
    ]
    assert sum(own) >= 0.7 * len(own)


def test_terms_are_sorted_below_their_letters():
    order = [letters(names_of(entry)[0]) for entry in TERMS]
    assert order == sorted(order) and len(order) == len(set(order))
    assert len(order) >= 80
    cells = [c.source for c in read(GLOSSARY).cells]
    heads = [i for i, source in enumerate(cells) if source.startswith("## ")]
    for i in heads:
        below = items(cells[i + 1])
        assert {letters(names_of(x)[0])[0].upper() for x in below} == {cells[i][3:]}
    assert len(heads) == len({name[0] for name in order})


# Their names and ours

NAMES = REFERENCE / "names.ipynb"
# what the page calls its values: of what class each is, or None for a tensor
LOCAL = {"schedule": "NoiseSchedule", "denoiser": "Denoiser"} | dict.fromkeys(
    "x0 xt xT eps out t s pred previous model network images image betas ab_t "
    "torch x T gamma".split()
)


def rows(text: str) -> list[tuple[str, str, str]]:
    "The rows of the tables: theirs, ours, the catch."
    found = re.findall(r"^\| (.+?) \| (.*?) \| (.*?) ?\|$", text, re.M)
    return [row for row in found if set("".join(row)) - set("- ")]


def sections() -> dict[str, tuple[list, str]]:
    "Heading -> its rows, and the code of its evidence."
    found, heading = {}, ""
    for cell in read(NAMES).cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            heading = cell.source
            found[heading] = ([], "")
        elif heading:
            table, below = found[heading]
            if cell.cell_type == "markdown":
                kept = [row for row in rows(cell.source) if row[0] != "theirs"]
                found[heading] = (table + kept, below)
            else:
                found[heading] = (table, f"{below}\n{code(cell)}")
    return found


SECTIONS = sections()
ROWS = [row for table, _ in SECTIONS.values() for row in table]
LAST = ast.parse(list(SECTIONS.values())[-1][1])  # where the library itself is called


@cache
def places() -> list:
    "The package and its modules."
    inside = [f"ddpm_lit.{module}" for module in modules()]
    return [importlib.import_module(name) for name in ("ddpm_lit", *inside)]


def public(name: str):
    "What a name means: in the package, or in one of its modules."
    for place in places():
        if name in vars(place) or name in getattr(place, "__all__", ()):
            return getattr(place, name)
    raise AssertionError(f"{name} is not in ddpm_lit")


def has(kind, name: str) -> bool:
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return hasattr(kind, name) or name in [field.name for field in fields]


def kind_of(node):
    "The class or value of ours that an expression is of; None where it is no matter."
    if isinstance(node, ast.Name):
        kind = LOCAL.get(node.id, node.id)
        return public(kind) if kind else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        made = kind_of(node.func) if node.func.id not in LOCAL else None
        return made if inspect.isclass(made) else None
    return None


def check_call(call: ast.Call) -> None:
    "That a function, class or method of ours takes these arguments."
    function = call.func
    if isinstance(function, ast.Attribute):
        owner = kind_of(function.value)
        made = owner and getattr(owner, function.attr)
        bound = inspect.ismethod(made)
    else:
        made = kind_of(function)
        bound = getattr(function, "id", "") not in LOCAL
        made = made if bound or made is None else made.__call__
    if made is not None:
        words = {word.arg: None for word in call.keywords}
        given = [None] * (len(call.args) + (not bound))
        inspect.signature(made).bind(*given, **words)


def check(text: str) -> None:
    "An expression in the middle column: its names, their attributes, the arguments."
    tree = ast.parse(text, mode="eval")
    nodes = list(ast.walk(tree))
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {n.id for n in nodes if type(n) is ast.Name and type(n.ctx) is ast.Store}
    for node in nodes:
        if isinstance(node, ast.Name) and node.id not in own:
            kind_of(node)
        elif isinstance(node, ast.Attribute):
            kind = kind_of(node.value)
            assert kind is None or has(kind, node.attr), ast.unparse(node)
        elif isinstance(node, ast.Call):
            check_call(node)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.findall("`(.+?)`", row[0])[0])
def test_our_names_exist(row):
    ours = re.findall("`(.+?)`", row[1])
    assert ours, "a row without our name"
    for text in ours:
        check(text)


@pytest.mark.parametrize(
    "wrong",
    ["q_sampled", "NoiseSchedule.gamma", "schedule.betas", "EPS.encode(schedule)"],
)
def test_a_name_that_is_not_there_is_noticed(wrong):
    with pytest.raises((AssertionError, AttributeError)):
        check(wrong)


@pytest.mark.parametrize(
    "wrong",
    ["q_sample(schedule, x0, t)", "DDIM(noise=1)", "DDPM().step(xt)", "schedule.at()"],
)
def test_arguments_that_a_function_does_not_take_are_noticed(wrong):
    with pytest.raises(TypeError):
        check(wrong)


def heads(cell: str) -> list[str]:
    "Names of theirs, without their arguments."
    return [text.split("(")[0] for text in re.findall("`(.+?)`", cell)]


@pytest.mark.parametrize("heading", [h for h, (table, _) in SECTIONS.items() if table])
def test_every_row_is_run(heading):
    "Its first name is one that `agree` compares, or that the library is asked for."
    table, below = SECTIONS[heading]
    called = [n for n in ast.walk(ast.parse(below)) if isinstance(n, ast.Call)]
    compared = {
        argument.value
        for call in called
        if getattr(call.func, "id", "") == "agree"
        for argument in call.args[:1]
        if isinstance(argument, ast.Constant)
    }
    library = {x.attr for x in ast.walk(LAST) if isinstance(x, ast.Attribute)}
    first = [heads(theirs)[0] for theirs, *_ in table]
    assert len(first) == len(set(first)), "a row stands twice"
    left = [name for name in first if name not in compared | library]
    assert not left, "these rows are shown and not run"
    known = {name for theirs, *_ in table for name in heads(theirs)}
    catches = {name for *_, catch in table for name in heads(catch)}
    assert not compared - known - catches, "compared, but in no row"
