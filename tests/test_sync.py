"""What is generated is what is committed: modules, clean notebooks, README; and no
machine's paths anywhere."""

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser

import pytest
from book import NBS, PACKAGE, ROOT
from kernel import run_in_fork
from readme import readme


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of what nbdev works on."
    here = tmp_path_factory.mktemp("copy") / "ddpm_lit_copy"
    here.mkdir()
    for name in ("nbs", "ddpm_lit"):
        shutil.copytree(
            ROOT / name,
            here / name,
            symlinks=True,
            ignore=shutil.ignore_patterns(
                "__pycache__", ".ipynb_checkpoints", "nbdev.yml"
            ),
        )
    for name in ("settings.ini", "_quarto.yml", "README.md", ".gitignore"):
        shutil.copy(ROOT / name, here / name)
    return here


def nbdev(here, call: str):
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=here, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def contents(folder, pattern) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): p.read_text(encoding="utf-8")
        for p in sorted(folder.glob(pattern))
    }


def test_modules_are_what_the_notebooks_export(copy):
    by_hand = ("__init__.py", "__main__.py", "cli.py")
    for path in (copy / "ddpm_lit").rglob("*.py"):
        if path.name not in by_hand:
            path.unlink()
    nbdev(copy, "from nbdev.doclinks import nbdev_export; nbdev_export()")
    made, here = contents(copy / "ddpm_lit", "**/*.py"), contents(PACKAGE, "**/*.py")
    assert set(made) == set(here), (
        f"generated and committed differ: {set(made) ^ set(here)}"
    )
    assert not [name for name in here if here[name] != made[name]], "run nbdev_export"


def test_notebooks_are_clean(copy):
    nbdev(copy, "from nbdev.clean import nbdev_clean; nbdev_clean()")
    made, here = contents(copy / "nbs", "**/*.ipynb"), contents(NBS, "**/*.ipynb")
    assert not [name for name in here if here[name] != made[name]], "run nbdev_clean"


def test_readme_is_what_the_index_says():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == readme(), (
        "run python tests/readme.py"
    )


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(
        r'(?:src|href)="([^"]+)"', text
    )
    local = [t.split("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]
    assert not [t for t in local if not (ROOT / t).exists()]


def test_pages_are_processed_for_the_site_without_a_stray_file(copy, clerk):
    "`nbdev_proc_nbs`, but for its first act, to install Quarto."

    def git(*args):
        return subprocess.run(
            ["git", *args], cwd=copy, capture_output=True, text=True, check=True
        ).stdout

    git("init", "-q")
    git("add", "--all")
    before = git("status", "--porcelain")
    # half of its time would be the import of what the pages import
    process = "q._ensure_quarto = lambda: None; q.nbdev_proc_nbs(n_workers=0)"
    call = f"import nbdev.quarto as q; {process}"
    code, words = clerk.submit(run_in_fork, call, copy).result()
    assert code == 0, words
    made = {
        p.relative_to(copy / "_proc").as_posix() for p in (copy / "_proc").rglob("*")
    }
    assert {p.relative_to(NBS).as_posix() for p in NBS.rglob("*.ipynb")} | {
        "_quarto.yml",
    } <= made
    assert git("status", "--porcelain") == before, (
        "nbdev writes a file that git neither knows nor ignores"
    )


def test_old_addresses_lead_to_pages_that_the_site_has(tmp_path):
    sys.path.insert(0, str(ROOT / "site"))
    import redirects

    rendered = {
        p.relative_to(NBS).parent.as_posix()
        + "/"
        + re.sub(r"^\d+_", "", p.stem)
        + ".html"
        for p in NBS.rglob("*.ipynb")
        if p.parent != NBS
    }
    assert set(redirects.MOVED.values()) <= rendered
    made = redirects.write(tmp_path)
    assert len(made) == len(redirects.MOVED) and all(
        f'url={target}"' in (tmp_path / old).read_text(encoding="utf-8")
        for old, target in redirects.MOVED.items()
    )


def test_site_has_one_configuration():
    assert (NBS / "_quarto.yml").is_symlink() and (NBS / "_quarto.yml").resolve() == (
        ROOT / "_quarto.yml"
    ).resolve()
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    cfg = settings["DEFAULT"]
    site = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    for value in (
        cfg["description"],
        cfg["doc_host"] + cfg["doc_baseurl"],
        cfg["git_url"],
        f"output-dir: {cfg['doc_path']}",
    ):
        assert value in site
    assert cfg["custom_sidebar"] == "True", (
        "else nbdev would write a sidebar of its own"
    )


def test_no_machine_path_in_any_committed_text():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    kinds = (
        ".py",
        ".md",
        ".ini",
        ".yml",
        ".json",
        ".css",
        ".toml",
        ".cfg",
        ".txt",
        ".mplstyle",
        "run",
    )
    path = re.compile(r"(?<![\w.~:/])/(home|root|work|Users|tmp)/\w")
    found = {
        name: m[0]
        for name in listed
        if name.endswith(kinds)
        and (ROOT / name).is_file()
        and not name.startswith("tests/")
        and (m := path.search((ROOT / name).read_text(encoding="utf-8")))
    }
    assert not found
