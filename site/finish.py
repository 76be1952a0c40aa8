"""Quarto runs this after rendering. It sets what Quarto made of each page into the book's own frame, page.html, and
adds what the site is served with: formulas that need no script, fonts, search. No page asks another host for
anything."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from contents import ROOT, Page, pages
from frame import HERE, LOST, MAP, REPOSITORY, SITE, framed
from chapters import write as write_map
from redirects import write as write_redirects
from reference import write as write_reference
from reshape import claims, reshape

SECONDS = json.loads((ROOT / "nbs" / "seconds.json").read_text("utf-8"))
COLAB = "https://colab.research.google.com/github/ddpm-lit/ddpm_lit/blob/colab/nbs"


# What comes from npm


def install() -> Path:
    "The packages of package.json, installed once."
    modules = HERE / "node_modules"
    if not modules.is_dir():
        command = "npm install --no-package-lock --no-audit --no-fund --silent".split()
        subprocess.run(command, cwd=HERE, check=True)
    return modules


def typeset(formulas: list[tuple[str, bool]]) -> list[str]:
    "Each formula as HTML; True: set as a display."
    done = subprocess.run(
        ["node", str(HERE / "math.mjs")],
        input=json.dumps(formulas),
        capture_output=True,
        text=True,
        cwd=HERE,
    )
    if done.returncode:
        raise SystemExit(f"a formula cannot be set: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


SERIF = "@fontsource-variable/source-serif-4/files/source-serif-4"
SANS = "@fontsource-variable/source-sans-3/files/source-sans-3"
FONTS = {
    "serif": f"{SERIF}-latin-wght-normal",
    "serif-italic": f"{SERIF}-latin-wght-italic",
    "serif-greek": f"{SERIF}-greek-wght-normal",
    "sans": f"{SANS}-latin-wght-normal",
}
CODE_FONTS = {
    "code": "@fontsource/iosevka/files/iosevka-latin-400-normal",
    "code-bold": "@fontsource/iosevka/files/iosevka-latin-700-normal",
}


def fonts(modules: Path, folder: Path, characters: str) -> None:
    "The fonts; those for code with the characters that the book has, and no others."
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in FONTS.items():
        shutil.copy(modules / f"{source}.woff2", folder / f"{name}.woff2")
    from fontTools import subset

    options = subset.Options(flavor="woff2", layout_features=["mark", "mkmk", "ccmp"])
    for name, source in CODE_FONTS.items():
        font = subset.load_font(str(modules / f"{source}.woff2"), options)
        chosen = subset.Subsetter(options)
        chosen.populate(text=characters)
        chosen.subset(font)
        subset.save_font(font, str(folder / f"{name}.woff2"), options)


def assets(modules: Path, site: Path, characters: str) -> None:
    "Style, script, fonts and KaTeX's style."
    target = site / "assets"
    shutil.copytree(ROOT / "nbs" / "images", site / "images", dirs_exist_ok=True)
    shutil.copytree(HERE / "assets", target, dirs_exist_ok=True)
    fonts(modules, target / "fonts", characters)
    katex = target / "katex"
    (katex / "fonts").mkdir(parents=True, exist_ok=True)
    style = (modules / "katex/dist/katex.min.css").read_text("utf-8")
    # woff2 alone: every browser of the last ten years reads it
    style = re.sub(r',url\([^)]*\.(woff|ttf)\) format\("[^"]*"\)', "", style)
    (katex / "katex.min.css").write_text(style, "utf-8")
    for font in (modules / "katex/dist/fonts").glob("*.woff2"):
        shutil.copy(font, katex / "fonts")


def search(modules: Path, site: Path) -> None:
    "Pagefind's index of all pages."
    command = [str(modules / ".bin/pagefind"), "--site", str(site), "--quiet"]
    subprocess.run(command, check=True)


# The pages


def finished(
    page: Page, soup: BeautifulSoup, site: Path, picture: str, today: str
) -> str:
    "The page in its frame."
    order = pages()
    place = order.index(page)
    main = soup.body
    lead = soup.select_one('meta[name="description"]')
    home = page.notebook == "index.ipynb"
    contents, formulas = reshape(main, page, site)
    film, ways = hero(main) if home else ("", "")
    told = main.select("p, li, td, h2, h3")
    prose = (text.get_text(" ") for text in told if not text.find_parent("details"))
    words = len(" ".join(prose).split())
    return framed(
        page,
        main.decode_contents(),
        kind="home" if home else "page",
        name="ddpm_lit" if home else page.title,
        film=film,
        ways=ways,
        description=lead["content"] if lead else page.title,
        lead=lead["content"] if lead else "",
        picture=picture,
        minutes=max(1, round(words / 230)),
        seconds=SECONDS.get(page.notebook),
        needs=page.needs,
        notebook=page.notebook,
        notebook_file=page.notebook.rpartition("/")[2],
        colab=f"{COLAB}/{page.notebook}",
        source=f"{REPOSITORY}/blob/main/nbs/{page.notebook}",
        contents="" if home else contents,
        formulas=formulas,
        before=order[place - 1] if place else None,
        after=order[place + 1] if place + 1 < len(order) else None,
        date=today,
    )


def hero(main: Tag) -> tuple[str, str]:
    "The film and the three doors of the first page, taken out of its text."
    image = main.select_one("img")
    film, around = str(image), image.parent
    doors = next(p for p in main.select("p") if len(p.select("a")) == 3)
    ways = "".join(str(link) for link in doors.select("a"))
    doors.decompose()
    image.extract()
    if around.name == "p" and not around.get_text(strip=True):
        around.decompose()
    return film, ways


def first_picture(soup: BeautifulSoup, page: Page) -> str:
    "What is shown where a link to the page is shared."
    image = soup.select_one("body img")
    folder = page.address.rpartition("/")[0]
    if image is None or str(image["src"]).startswith("data:"):
        return "images/card.png"
    return os.path.normpath(f"{folder}/{image['src']}" if folder else image["src"])


def spans(soups: Iterable[BeautifulSoup]) -> list[Tag]:
    return [span for soup in soups for span in soup.select("span.math")]


def lost(site: Path, today: str) -> None:
    "What a host shows for an address that does not exist, from whatever folder."
    text = """<p>The address may be old or have a typing mistake in it. Search the book
    (press <kbd>/</kbd>), or begin at the <a href="{0}index.html">first page</a>, the
    <a href="{0}reference/api/index.html">library</a> or the
    <a href="{0}reference/equations.html">equation map</a>.</p>"""
    root = re.sub("https://[^/]*", "", f"{SITE}/")
    page = framed(LOST, text.format(root), root=root, date=today)
    (site / LOST.address).write_text(page.replace("data-pagefind-body", ""), "utf-8")


def sitemap(site: Path, addresses: Iterable[str]) -> None:
    "Pages that Quarto does not know, in the list that it leaves for search engines."
    path = site / "sitemap.xml"
    if not path.is_file():
        return
    text = path.read_text("utf-8")
    new = [one for one in addresses if f"/{one}</loc>" not in text]
    lines = "".join(f"  <url>\n    <loc>{SITE}/{one}</loc>\n  </url>\n" for one in new)
    path.write_text(text.replace("</urlset>", f"{lines}</urlset>"), "utf-8")


def finish(site: Path) -> None:
    modules = install()
    found = {}
    for page in pages():
        path = site / page.address
        text = path.read_text("utf-8") if path.is_file() else ""
        if '<meta name="generator" content="quarto' in text:
            found[page] = BeautifulSoup(text, "lxml")
            claims(found[page].body)
    if "QUARTO_PROJECT_RENDER_ALL" in os.environ and len(found) < len(pages()):
        raise SystemExit("Quarto did not render all pages")
    formulas = spans(found.values())
    known = [(span.get_text(), "display" in span["class"]) for span in formulas]
    distinct = list(dict.fromkeys(known))
    made = typeset(distinct)
    places = {formula: i for i, formula in enumerate(distinct)}
    for span, formula in zip(formulas, known):
        span.string = f"\ue000{places[formula]}\ue001"
    today = date.today().isoformat()
    made_here = write_reference(site, today)
    characters = set(map(chr, range(32, 127))) | set("".join(made_here.values()))
    for page, soup in found.items():
        picture = first_picture(soup, page)
        for code in soup.select("code"):
            characters |= set(code.get_text())
        text = finished(page, soup, site, picture, today)
        text = re.sub("\ue000(\\d+)\ue001", lambda m: made[int(m[1])], text)
        (site / page.address).write_text(text, "utf-8")
        folder = site / "notebooks"
        folder.mkdir(exist_ok=True)
        shutil.copy(ROOT / "nbs" / page.notebook, folder)
    assets(modules, site, "".join(sorted(characters)))
    shutil.rmtree(site / "site_libs", ignore_errors=True)
    (site / "search.json").unlink(missing_ok=True)
    write_redirects(site)
    write_map(site, today)
    lost(site, today)
    sitemap(site, [MAP.address, *made_here])
    search(modules, site)


if __name__ == "__main__":
    finish(Path(os.environ["QUARTO_PROJECT_OUTPUT_DIR"]))
