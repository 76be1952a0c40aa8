"""The rendered site in a browser: every page at four widths, light and dark.

    python tests/browser.py [part of an address ...]

measures _docs/ and writes results/site.json (all pages only). It needs the rendered
site, Chromium, `pip install playwright`, and axe-core, which site/finish.py installs
with the rest of site/package.json."""

import gzip
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_docs"
AXE = ROOT / "site" / "node_modules" / "axe-core" / "axe.min.js"
WIDTHS = (390, 768, 1280, 1920)
GRAVE = ("serious", "critical")  # axe-core's words

# what a page says about itself
SHIFT = """() => { window.__shift = 0;
  new PerformanceObserver(list => { for (const e of list.getEntries())
    if (!e.hadRecentInput) window.__shift += e.value; })
    .observe({type: "layout-shift", buffered: true}); }"""
SIDEWAYS = "() => document.documentElement.scrollWidth - innerWidth"
CUT = """() => [...document.querySelectorAll("main *")].filter(node => {
  const style = getComputedStyle(node);
  if (node.closest(".katex") || !node.offsetParent) return false;
  if (node.scrollWidth <= node.clientWidth + 1 || !node.clientWidth) return false;
  const signed = node.matches(".wide, div.sourceCode, pre, .claim .body, table");
  return style.overflowX !== "visible" && !signed;
}).map(node => node.className || node.tagName).slice(0, 5)"""
SIGNLESS = """() => [...document.querySelectorAll(".wide, div.sourceCode")].filter(
  node => node.scrollWidth > node.clientWidth + 1 && node.tabIndex < 0).length"""
WRAPPED = """() => [...document.querySelectorAll("main div.sourceCode pre")].filter(
  node => getComputedStyle(node).whiteSpace.startsWith("pre-wrap")
    && !node.closest(".signature")).length"""
LINKS = """() => [
  [...document.querySelectorAll("a[href]")].map(a => a.href.baseVal ?? a.href),
  [...document.querySelectorAll("[id]")].map(node => node.id)]"""
LOADED = """() => { const t = performance.getEntriesByType("navigation")[0];
  return Math.round(t.domInteractive); }"""
TALL = "() => document.documentElement.scrollHeight"


def missing() -> str:
    "Why the site cannot be looked at here; empty if it can."
    if not (SITE / "index.html").is_file():
        return "there is no rendered site in _docs/"
    if not AXE.is_file():
        return "axe-core is not installed in site/node_modules"
    if not chromium():
        return "there is no Chromium"
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return ""


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    named = os.environ.get("CHROMIUM")
    return next(filter(None, map(shutil.which, [named] if named else names)), "")


class Host(SimpleHTTPRequestHandler):
    "A quiet server that sends text compressed, as the hosts of such sites do."

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        kind = self.guess_type(str(path))
        if not path.is_file() or not re.search("text|javascript|json|svg", kind):
            super().do_GET()
            return
        body = gzip.compress(path.read_bytes())
        self.send_response(200)
        headers = {"Content-Type": kind, "Content-Encoding": "gzip"}
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served() -> Iterator[str]:
    "The site on this machine alone."
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Host, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()


def addresses() -> list[str]:
    "All pages that are no redirects."
    found = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html"))
    return [one for one in found if "<main" in (SITE / one).read_text("utf-8")]


@contextmanager
def window() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"]
        )
        yield browser
        browser.close()


def measured(browser, home: str, address: str) -> dict:
    "One page: what it asks for, weighs and moves, at all widths, light and dark."
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, faults, foreign, weight = context.new_page(), [], [], {"text": 0, "images": 0}

    def answered(response) -> None:
        if not response.url.startswith((home, "data:", "blob:")):
            foreign.append(response.url)
            return
        kind = response.headers.get("content-type", "")
        size = int(response.headers.get("content-length", 0))
        weight["images" if kind.startswith("image/") else "text"] += size

    page.on("response", answered)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.add_init_script(f"({SHIFT})()")
    page.goto(home + address, wait_until="networkidle")
    found = {"screens": round(page.evaluate(TALL) / 900, 1)}
    found["interactive ms"] = page.evaluate(LOADED)
    links, ids = page.evaluate(LINKS)
    found["shift"] = round(page.evaluate("window.__shift"), 4)
    found["kB"] = round(weight["text"] / 1000)
    found["kB of images"] = round(weight["images"] / 1000)
    found["wrapped"] = page.evaluate(WRAPPED)
    found["sideways"] = {}
    found["cut"] = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(60)
        if (beyond := page.evaluate(SIDEWAYS)) > 0:
            found["sideways"][width] = beyond
        if cut := page.evaluate(CUT):
            found["cut"][width] = cut
        found["signless"] = max(found.get("signless", 0), page.evaluate(SIGNLESS))
    page.set_viewport_size({"width": 1280, "height": 900})
    found["axe"] = {light: axe(page, light) for light in ("light", "dark")}
    found["foreign"], found["errors"] = foreign, faults
    context.close()
    return found | {"links": links, "ids": ids}


def axe(page, light: str) -> list[str]:
    "Grave violations, with the first place of each."
    page.emulate_media(color_scheme=light)
    page.evaluate(f"document.documentElement.dataset.appearance = '{light}'")
    if not page.evaluate("() => 'axe' in window"):
        page.add_script_tag(path=str(AXE))
    # KaTeX sets a formula as boxes that say what MathML says beside them
    result = page.evaluate(
        "() => axe.run({exclude: ['.katex-html']}, {resultTypes: ['violations']})"
    )
    return [
        f"{v['id']}: {v['nodes'][0]['target'][0]} ({len(v['nodes'])})"
        for v in result["violations"]
        if v["impact"] in GRAVE
    ]


def broken(found: dict[str, dict], home: str) -> dict[str, list[str]]:
    "Links to pages or places of the site that are not there."
    places = {home + address: set(facts["ids"]) for address, facts in found.items()}
    out: dict[str, list[str]] = {}
    for address, facts in found.items():
        for link in facts["links"]:
            page, place = urldefrag(link)
            if not page.startswith(home):
                continue
            page = re.sub(r"/$", "/index.html", page)
            if page in places and (not place or unquote(place) in places[page]):
                continue
            file = SITE / unquote(page.removeprefix(home))
            if not place and file.is_file():
                continue
            if page in places or not file.is_file():
                out.setdefault(address, []).append(unquote(link.removeprefix(home)))
    return out


def everything(names: list[str]) -> dict[str, dict]:
    "All pages (or those whose address has one of the names), measured."
    found = {}
    with served() as home, window() as browser:
        for address in addresses():
            if not names or any(name in address for name in names):
                found[address] = measured(browser, home, address)
                print(address, file=sys.stderr, flush=True)
        gone = broken(found, home) if not names else {}
    for address, facts in found.items():
        facts["broken"] = sorted(set(gone.get(address, [])))
        del facts["links"], facts["ids"]
    return found


def version() -> str:
    with window() as browser:
        return browser.version


def write(found: dict[str, dict]) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from origin import origin

    package = json.loads((AXE.parent / "package.json").read_text("utf-8"))
    tools = {"Chromium": version(), "axe-core": package["version"]}
    record = {
        "origin": origin("python tests/browser.py", 0),
        "tools": tools,
        "widths": WIDTHS,
        "pages": found,
    }
    path = ROOT / "results" / "site.json"
    text = json.dumps(record, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    if reason := missing():
        raise SystemExit(reason)
    measures = everything(sys.argv[1:])
    for address, facts in measures.items():
        print(address, json.dumps(facts, ensure_ascii=False))
    if not sys.argv[1:]:
        write(measures)
