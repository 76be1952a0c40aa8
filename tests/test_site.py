"""The site, as far as it can be tested without Quarto: the reference and what it shows,
links and figures of the pages, and what is changed in the text that Quarto renders."""

import importlib
import inspect
import json
import re
from functools import cached_property

import pytest
import website
from book import NOTEBOOKS, ROOT, name_of
from bs4 import BeautifulSoup

# found by way of website, which adds the folder site
import chapters
import colab
import example
import finish
import flags
import reference
import reshape
from contents import Page, pages
from source import Module, comments, modules, public

EXAMPLES = [
    one for path in sorted(example.FOLDER.glob("*.py")) for one in example.read(path)
]
MOST_USED = """
    Gaussian gaussian_kl linear_schedule scaled_linear_schedule cosine_schedule
    sigmoid_schedule q_sample draw_noise q_posterior EPS X0 V Denoiser ddpm_loss
    vlb_terms GaussianMixtureOracle DDPM DDIM sample sample_steps ddim_encode DPMSolver
    guided interpolate inpaint image_to_image ImageData load_images save_grid UNet
    UNetConfig TrainConfig Trainer load_pretrained Run.draw bits_per_dim
""".split()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The folder with the pages of the reference."
    folder = tmp_path_factory.mktemp("site")
    reference.write(folder, "2026-01-01")
    return folder


@pytest.fixture(scope="module")
def soups(site):
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(
            path.read_text("utf-8"), "lxml"
        )
        for path in site.rglob("*.html")
    }


# The reference


def methods(kind: type) -> set[str]:
    "The public methods and properties that the package gives a class, at run time."
    plain = (classmethod, staticmethod, property, cached_property)
    return {
        name
        for base in kind.__mro__
        if base.__module__.startswith("ddpm_lit")
        for name, value in vars(base).items()
        if (inspect.isfunction(value) or isinstance(value, plain))
        and (not name.startswith("_") or name == "__call__")
    }


def test_every_public_name_has_an_entry(soups):
    import ddpm_lit

    found = {tag["id"] for soup in soups.values() for tag in soup.select("[id]")}
    missing = [name for name in ddpm_lit.__all__ if name.lower() not in found]
    assert not missing


def test_every_method_and_property_has_an_entry(soups):
    import ddpm_lit

    found = {tag["id"] for soup in soups.values() for tag in soup.select("[id]")}
    for name in ddpm_lit.__all__:
        kind = getattr(ddpm_lit, name)
        if not inspect.isclass(kind):
            continue
        above = [base.__name__ for base in kind.__mro__]
        for method in methods(kind):
            places = {f"{base}.{method}".lower() for base in above}
            assert places & found, f"{name}.{method} has no entry"


def test_parameters_are_those_of_the_function():
    import ddpm_lit

    for module, names in public().items():
        for name in names:
            entry, value = modules()[module].entry(name), getattr(ddpm_lit, name)
            if not callable(value) or entry.kind == "constant" or entry.bases:
                continue
            said = [one.name.lstrip("*") for one in entry.parameters]
            assert said == list(inspect.signature(value).parameters), name


def test_defaults_are_those_of_the_function():
    from ddpm_lit import TrainConfig, q_posterior

    said = modules()["configs"].entry("TrainConfig").parameters
    assert {one.name: eval(one.default) for one in said} == vars(TrainConfig())
    assert modules()["posterior"].entry("q_posterior").parameters[-1].default == "None"
    assert inspect.signature(q_posterior).parameters["s"].default is None


@pytest.fixture(scope="module")
def now():
    return website.measured()


@pytest.mark.parametrize("kind", ["no docstring", "no comment"])
def test_what_is_said_of_a_function(kind, now):
    check_list(kind, now[kind])


def check_list(kind, found):
    allowed = website.excepted()[kind]
    assert not set(found) - set(allowed), kind
    mended = set(allowed) - set(found)
    assert not mended, "run python tests/website.py: its list can shrink"


def test_links_of_the_reference(soups):
    "Each leads to a page of the site, and there to a heading or a function."
    places = {page.address: website.anchors(notebook(page)) for page in pages()}
    for address, soup in soups.items():
        for link in soup.select("main a[href]"):
            target, _, anchor = str(link["href"]).partition("#")
            if target.startswith("https:"):
                continue
            there = resolved(address, target) if target else address
            if there in soups:
                assert not anchor or soups[there].find(id=anchor), link
            else:
                assert there in places, f"{address}: {link}"
                assert not anchor or anchor in places[there], f"{address}: {link}"


def resolved(address: str, target: str) -> str:
    folder = (ROOT / address).parent
    return (folder / target).resolve().relative_to(ROOT).as_posix()


def notebook(page: Page):
    return ROOT / "nbs" / page.notebook


def test_source_links_lead_to_the_line(soups):
    for soup in soups.values():
        for link in soup.select('.where a[href*="/blob/main/ddpm_lit/"]'):
            file, line = re.search(r"main/(.+\.py)#L(\d+)$", link["href"]).groups()
            text = (ROOT / file).read_text("utf-8").splitlines()[int(line) - 1]
            entry = link.find_parent("section").find(["h2", "h3"])["id"]
            assert re.match(r"\s*(def|class) |[A-Z]", text), f"{entry}: {text}"


def test_claims_of_a_function_are_linked(soups):
    "A proof names no function; it belongs to those that are tied to it by its name."
    entry = soups["reference/api/gaussian.html"].find(id="gaussian.log_prob").parent
    line = next(dd for dd in entry.select("dd") if "log density:" in dd.text)
    assert [a.text for a in line.select("a")] == ["✓ proved", "⇔ tied", "≈ checked"]


def test_sitemap_has_the_reference_once(tmp_path):
    path = tmp_path / "sitemap.xml"
    path.write_text("<urlset>\n  <url><loc>x/a.html</loc></url>\n</urlset>\n", "utf-8")
    for _ in range(2):
        finish.sitemap(tmp_path, ["a.html", "reference/command.html"])
    text = path.read_text("utf-8")
    assert text.count("<loc>") == 2
    assert f"<loc>{finish.SITE}/reference/command.html</loc>" in text


def test_frame_of_the_reference(soups):
    soup = soups["reference/api/ddpm.html"]
    for page, name in ((soup, "Library"), (soups["reference/command.html"], "Command")):
        assert page.select_one(".book [aria-current]").text == name
    assert soup.h1.text == "ddpm_lit.ddpm"
    ids = [tag["id"] for tag in soup.select("[id]")]
    assert len(ids) == len(set(ids))


def test_changelog_is_a_page(soups):
    main = soups["reference/changes.html"].main
    places = [heading["id"] for heading in main.select("h2")]
    assert places == ["version-Unreleased", "version-0.1.0"]
    links = {a["href"] for a in main.select("li a")}
    assert "../3_images/storage.html" in links
    assert not [link for link in links if link.endswith(".ipynb")]


# Reading the source

SOURCE = '''
# of all
LIMIT = 3

def free(
    x: Tensor,  # (B,) behind
    # above, and
    # above
    y: int | None = None,
    *rest: int,
    z: float = 1.0,  # at last
) -> Tensor:  # what comes back
    """A sentence in two
    lines. ValueError for x."""
    require(x > 0, "x", x, "be positive")
    require(y, "y", y, f"be one of {z}")

class Base:
    def low(self) -> int:
        "Of the base."

class Thing(Base):
    "A thing."

    run, made = free, classmethod(free)

    @property
    def size(self) -> int:  # in metres
        "How large."
        return 1

    def _hidden(self): ...
'''


@pytest.fixture
def read(tmp_path, monkeypatch):
    "A module of this source."
    import source

    (tmp_path / "small.py").write_text(SOURCE, "utf-8")
    small = Module("small")
    monkeypatch.setattr(source, "PACKAGE", tmp_path)
    monkeypatch.setattr(source, "home", lambda: {"Base": small})
    return small


def test_comments_stand_behind_or_above(read):
    entry = read.made("free")
    assert [one.name for one in entry.parameters] == ["x", "y", "*rest", "z"]
    said = [one.comment for one in entry.parameters]
    assert said == ["(B,) behind", "above, and above", "", "at last"]
    assert entry.returns.kind == "Tensor"
    assert entry.returns.comment == "what comes back"
    assert [one.default for one in entry.parameters] == ["", "None", "", "1.0"]


def test_errors_are_taken_from_docstring_and_source(read):
    entry = read.made("free")
    assert entry.about == "A sentence in two lines."
    assert entry.errors == [
        "ValueError for x.",
        "ValueError: `x` must be positive.",
        "ValueError: `y` must be one of `z`.",
    ]


def test_methods_of_a_class(read):
    members = {one.name: one for one in read.made("Thing").members}
    assert list(members) == ["run", "made", "size", "low"]
    assert members["run"].function == members["made"].function == "free"
    # self, or the class, is not asked for
    assert [one.name for one in members["made"].parameters] == ["y", "*rest", "z"]
    assert members["size"].kind == "property"
    assert members["size"].returns.comment == "in metres"
    assert members["low"].full == "Thing.low"
    assert read.made("LIMIT").doc == "of all"


def test_a_comment_in_a_text_is_none():
    said = comments('x = "# no"\ny = 1  # yes\n# %% cell\n')
    assert said.behind == {2: "yes"} and said.alone == {}


# Examples


@pytest.mark.parametrize("one", EXAMPLES, ids=lambda one: one.name)
def test_example(one):
    code = [line for line in one.code.splitlines() if line]
    assert len(code) <= 8
    assert one.output, "it prints nothing"
    assert example.printed(one) == one.output, "run python site/example.py"


def test_most_used_names_have_an_example(soups):
    assert not set(MOST_USED) - {one.name for one in EXAMPLES}
    shown = {
        section.find(["h2", "h3"])["id"]
        for soup in soups.values()
        for section in soup.select("section.entry")
        if section.select_one(".cell-output")
    }
    assert shown == {one.name.lower() for one in EXAMPLES}


def test_examples_are_in_the_file_of_their_module():
    for path in example.FOLDER.glob("*.py"):
        for one in example.read(path):
            assert modules()[path.stem].entry(one.name.split(".")[0])


# The command


@pytest.mark.parametrize("verb", flags.VERBS)
def test_flags_are_those_that_are_read(verb):
    module = "recipes" if verb == "Train" else "flags"
    there = importlib.import_module(f"ddpm_lit.command.{module}")
    read = importlib.import_module("ddpm_lit.command.flags")
    known = set(read.flag_names(read.draft(getattr(there, verb)))) - {"--help"}
    found = next(one for one in flags.verbs() if one["name"] == verb.lower())
    said = [flag for group in found["groups"] for flag in group["flags"]]
    words = {w for f in said for w in re.findall(r"--[\w-]+", f.call)}
    assert words == known
    assert all(flag.about for flag in said)


def test_presets_are_those_of_the_recipes():
    from dataclasses import asdict

    from ddpm_lit.command.recipes import PRESETS

    table = flags.presets()
    assert table["names"] == list(PRESETS)
    for name, value in PRESETS.items():
        parts = asdict(value)
        given = parts | parts["train"] | parts["unet"] | parts["noise"]
        column = table["names"].index(name)
        for flag, row in table["rows"]:
            field = flag[2:].replace("-", "_")
            assert row[column] == flags.plain(given[field]), f"{name} {flag}"


# The pages


def test_links_between_pages_lead_somewhere(now):
    check_list("broken links", now["broken links"])


@pytest.mark.parametrize("kind", ["no caption", "no description"])
def test_figures(kind, now):
    check_list(kind, now[kind])
    print(f"figures with {kind}: {len(now[kind])}")


def test_pages_of_the_site_are_the_notebooks():
    assert {page.notebook for page in pages()} == {name_of(path) for path in NOTEBOOKS}
    addresses = [page.address for page in pages()]
    assert len(addresses) == len(set(addresses))
    assert "1_mathematics/05_posterior.html" not in addresses
    assert "1_mathematics/posterior.html" in addresses


# What is changed in the text

POSTERIOR = next(page for page in pages() if page.module == "posterior")


def text(html: str, page: Page = POSTERIOR, folder=ROOT):
    "The text of a page, reshaped, with its table of contents."
    main = BeautifulSoup(f"<body>{html}</body>", "lxml").body
    table, formulas = reshape.reshape(main, page, folder)
    return main, table, formulas


def test_headings_have_links_and_are_listed():
    main, table, formulas = text('<h2 id="a">A <code>b</code></h2><h3 id="c">C</h3>')
    assert main.select_one("h2 a.anchor")["href"] == "#a"
    assert 'href="#a">A <code>b</code></a>' in table and 'class="h3"' in table
    assert not formulas
    assert text('<h2 id="a">Alone</h2>')[1] == ""


def test_exported_cells_have_a_heading():
    code = "class Thing:\n    def size(self): ...\n\n\ndef q_posterior(): ...\n"
    main, table, _ = text(
        '<div class="cell"><details class="code-fold">'
        "<summary>Exported source</summary>"
        f'<div class="sourceCode"><pre>{code}</pre></div></details></div>'
    )
    assert [tag["id"] for tag in main.select("h3")] == ["thing", "q_posterior"]
    assert main.find(id="thing.size").name == "span"
    assert "exported" in main.select_one(".cell")["class"]
    assert not main.select("details")
    source, entry = main.select(".where")[1].select("a")
    assert entry["href"] == "../reference/api/posterior.html#q_posterior"
    assert len(main.select(".where a")) == 3, "Thing is not public"
    number = int(source["href"].partition("#L")[2])
    written = (ROOT / "ddpm_lit/posterior.py").read_text("utf-8").splitlines()
    assert written[number - 1].startswith("def q_posterior")


def claim(line: str):
    "A line that a claim prints, reshaped."
    html = f'<body><div class="cell-output-markdown"><p>{line}</p></div></body>'
    main = BeautifulSoup(html, "lxml").body
    reshape.claims(main)
    return main


WORDS = dict.fromkeys([*reshape.KINDS, "proved for T = 3"])
FORMULA = '<span class="math inline">a = b</span>'


@pytest.mark.parametrize("word", WORDS)
def test_claims_are_blocks(word):
    kind = reshape.KINDS.get(word, "case")
    name = "DDPM eq. 7, mean (again)"
    main = claim(f"✓ <strong>{word}</strong> ({name}) \u2003 {FORMULA}")
    block = main.select_one(f"div.claim.{kind}")
    assert block.select_one(".name").text == name
    assert block.select_one("strong").text == word
    assert block.select_one(".mark").text == "✓"
    assert block.select_one(".mark")["aria-hidden"] == "true"
    assert block.select_one("span.math.display").text == "a = b"
    assert not block.select("details")


@pytest.mark.parametrize(
    "word, title", [("proved", "Conditions"), ("refuted", "A counterexample")]
)
def test_what_follows_the_formula_of_a_claim_is_folded(word, title):
    second = FORMULA.replace("a = b", "c")
    main = claim(f"x <strong>{word}</strong> (n) \u2003 {FORMULA}, where {second}")
    fold = main.select_one("details")
    assert fold.summary.text == title
    assert fold.select_one(".rest").text == "where c"
    assert [m.text for m in main.select(".math.display")] == ["a = b"]


def test_claims_in_words_stay_in_one_line():
    "With a formula among the words too."
    main = claim("⇔ <strong>tied</strong> (n) \u2003 <code>f</code> agrees")
    assert main.select_one(".claim.tied .body").text == "f agrees"
    main = claim(f"≈ <strong>checked</strong> (n) \u2003 against {FORMULA}: 1 number")
    assert main.select_one(".claim.checked .body").text == "against a = b: 1 number"
    assert not main.select("details, .display")


def test_other_bold_lines_are_no_claims():
    main = claim("<strong>676</strong> claims")
    assert not main.select(".claim") and main.p.text == "676 claims"


@pytest.mark.parametrize(
    "code, title",
    [
        ('import torch\nplt.style.use("a")', "Imports"),
        ("import torch\nx = 1", ""),
        ("x = 1", ""),
    ],
)
def test_cells_of_imports_are_folded(code, title):
    source = f'<div class="sourceCode"><pre>{code}</pre></div>'
    main, _, _ = text(f'<div class="cell">{source}</div>')
    fold = main.select_one("details > summary")
    assert (fold.text if fold else "") == title
    assert main.select_one("pre").text == code


@pytest.mark.parametrize("lines, folds", [(7, 1), (6, 0)])
def test_long_code_of_a_figure_is_folded(lines, folds):
    code = "\n".join(["x = 1"] * lines)
    source = f'<div class="sourceCode"><pre>{code}</pre></div>'
    main, _, _ = text(f'<div class="cell">{source}<figure></figure></div>')
    assert len(main.select("details > summary")) == folds


def test_links_are_relative():
    main, _, _ = text(
        f'<a href="{reshape.HOME}2_sampling/ddim.html#ddim" target="_blank">a</a>'
        '<a href="https://arxiv.org/abs/2006.11239">b</a>'
    )
    here, away = main.select("a")
    assert here["href"] == "../2_sampling/ddim.html#ddim" and "target" not in here.attrs
    assert away["href"] == "https://arxiv.org/abs/2006.11239"


def test_wide_things_are_in_boxes():
    main, _, formulas = text(
        '<table class="t"><tr><td>1</td></tr></table>'
        '<p><span class="math display">x</span><span class="math inline">y</span></p>'
    )
    assert main.table.parent["class"] == "wide" and main.table.parent["aria-label"]
    assert main.select_one("span.display").parent["class"] == "wide"
    assert main.select_one("span.inline").parent.name == "p"
    assert formulas


def test_pictures_have_a_size_and_a_description(tmp_path):
    from PIL import Image

    folder = (tmp_path / POSTERIOR.address).parent
    folder.mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(folder / "a.png")
    main, _, _ = text(
        '<figure><img src="a.png"><figcaption>What is seen</figcaption></figure>'
        '<img src="a.png" alt="said">',
        folder=tmp_path,
    )
    first, second = main.select("img")
    assert (first["width"], first["height"]) == ("30", "20")
    assert first["alt"] == "What is seen" and second["alt"] == "said"
    assert "loading" not in first.attrs and second["loading"] == "lazy"


def test_callouts_that_fold_need_no_script():
    main, _, _ = text(
        '<div class="callout"><div class="callout-header" data-bs-toggle="collapse">'
        '<div class="callout-title-container">Solution</div></div>'
        '<div class="callout-body"><p>Forty-two</p></div></div>'
    )
    assert main.select_one("details.callout summary").text == "Solution"
    assert main.select_one("details.callout p").text == "Forty-two"


# A page in its frame


def framed(page: Page, html: str) -> BeautifulSoup:
    head = '<head><meta name="description" content="Promise"></head>'
    soup = BeautifulSoup(f"<html>{head}<body>{html}</body></html>", "lxml")
    made = finish.finished(page, soup, ROOT, "images/card.png", "2026-01-01")
    return BeautifulSoup(made, "lxml")


def test_a_page_in_its_frame():
    soup = framed(POSTERIOR, '<h2 id="a">A</h2><h2 id="b">B</h2><p>words</p>')
    assert [tag.text for tag in soup.select("h1")] == [POSTERIOR.title]
    assert soup.select_one(".lead").text == "Promise"
    assert soup.select_one(".book [aria-current]").text.endswith(POSTERIOR.short)
    assert soup.select_one(".book details[open] summary").text == POSTERIOR.part
    assert len(soup.select(".contents li")) == 2
    assert soup.select_one("article").p and "words" in soup.select_one("article").text
    before, after = soup.select(".pager a")
    assert before["href"] == "../1_mathematics/forward.html"
    assert after["href"] == "../1_mathematics/prediction.html"
    assert soup.select_one("link[rel=canonical]")["href"].endswith(POSTERIOR.address)


def test_the_first_page_in_its_frame():
    doors = "".join(f'<a href="{i}.html">{i}</a>' for i in range(3))
    html = f'<p><img src="images/film.gif" alt="f"></p><p>{doors}</p><p>Text</p>'
    soup = framed(pages()[0], html)
    assert soup.select_one(".hero h1").text == "Promise"
    assert len(soup.select(".ways a")) == 3
    assert len(soup.select("main img")) == 1 and soup.select_one(".hero > img")
    assert [p.text for p in soup.select("article > p")] == ["Text"]


def test_no_page_asks_another_host(soups):
    made = [*soups.values(), framed(POSTERIOR, "<p>words</p>")]
    for soup in made:
        for tag in soup.select("script[src], img[src], link[rel=stylesheet]"):
            assert not re.match(r"(https?:)?//", tag.get("src") or tag["href"]), tag


def test_copies_for_colab_install_the_book_first(tmp_path):
    colab.write(tmp_path)
    for page in pages():
        copy = json.loads((tmp_path / "nbs" / page.notebook).read_text("utf-8"))
        own = json.loads((ROOT / "nbs" / page.notebook).read_text("utf-8"))
        first, *rest = copy["cells"]
        assert rest == own["cells"]
        folder = page.notebook.rpartition("/")[0]
        assert f"/nbs/{folder}\n" in "".join(first["source"])


def test_the_map_shows_every_numbered_page_and_what_it_builds_on():
    drawing = chapters.drawing()
    keys = [box["key"] for box in drawing["boxes"]]
    assert keys == [p.number.replace(".", "-") for p in pages() if p.number]
    for arrow in drawing["arrows"]:
        needed, needing = map(keys.index, arrow["ends"])
        assert needed < needing
    posterior = next(p for p in pages() if p.module == "posterior")
    assert [p.module for p in chapters.direct(posterior)] == ["forward"]


def test_the_page_for_lost_addresses_finds_its_files_from_everywhere(tmp_path):
    finish.lost(tmp_path, "2026-01-01")
    text = (tmp_path / "404.html").read_text("utf-8")
    own = re.findall(r'(?:href|src)="([^"#]+)"', text)
    assert len(own) > 50 and all(re.match("/ddpm_lit/|https:", link) for link in own)


@pytest.mark.parametrize(
    "source, figure, name",
    [
        ("import torch", "", "Imports"),
        ("plot()", "<figure></figure>", "The code of this figure"),
        ("x = 1", "", "Show the code"),
    ],
)
def test_folded_code_says_what_it_is(source, figure, name):
    text = f'<div class="cell"><div class="sourceCode">{source}</div>{figure}</div>'
    assert reshape.folded_name(BeautifulSoup(text, "lxml").div) == name


def test_what_is_not_of_the_line_is_folded_up_to_the_next_heading_as_high():
    text = """<main><h2>A</h2><p>line</p><h3>Evidence: more</h3><p>one</p><h4>b</h4>
    <p>two</p><h2>C</h2><p>line again</p></main>"""
    main = BeautifulSoup(text, "lxml").main
    reshape.evidence(main)
    (fold,) = main.select("details.aside")
    assert fold.summary.get_text() == "Evidence: more"
    assert [p.get_text() for p in fold.select("p")] == ["one", "two"]
    assert [p.get_text() for p in main.find_all("p", recursive=False)] == [
        "line",
        "line again",
    ]
