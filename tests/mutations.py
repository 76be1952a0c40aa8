"""Mistakes made on purpose, to see whether the pages and the tests notice: `python
tests/mutations.py [part of a name ...]`. They are listed in mutations.txt.

Each mutation replaces one piece of an exported formula by a near miss: a sign, an
index, a root, a coefficient. It is made in a temporary copy, both in the module and
in the notebook that exports it, and must be found exactly once in either. Then the
page's code is run, or a test file, whichever the mutation names as its judges. A
mutation counts as caught if every judge fails, and fails for the right reason: an
assertion or a refused value, not a crash.

Every judge is a process of its own, forked from one that has imported everything
heavy, but never the package: that comes from the copy. A page runs once for all its
mutations: each is tried in a fork of that run, from the cell in which the mistake is
made."""

import atexit
import functools
import gc
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PAGE = "page"  # the judge that is the notebook itself
PLUGINS: list[object] = []  # of pytest, for judges that are asked in another order
HEAVY = """
    torch torch._dynamo torch.utils.tensorboard torchvision accelerate.tracking
    diffusers.models.unets.unet_2d sympy sympy.physics.units sympy.tensor.tensor
    matplotlib.pyplot scipy.stats sklearn.calibration IPython.display pytest hypothesis
""".split()


@dataclass(frozen=True)
class Mutation:
    """One mistake: in `module`, the text `old` becomes `new`; `judges` are PAGE, files
    in tests/, or single tests of long files. The first is the owner, whom the slow
    suite asks."""

    name: str
    module: str
    old: str
    new: str
    judges: tuple[str, ...]


def told(entry: str, module: str) -> Mutation:
    "A mutation as it stands in mutations.txt."
    name, *lines = entry.splitlines()
    old, new = ("\n".join(x[2:] for x in lines if x[0] == sign) for sign in "-+")
    judges = lines[-1].removeprefix("by ").split(", ")
    return Mutation(name, module, old, new, tuple(judges))


def read_mutations(text: str) -> list[Mutation]:
    """All mutations, by module: a name, the old text and the new one as in a diff, and
    who is to notice."""
    module, found = "", []
    for entry in text.strip().split("\n\n"):
        if entry.startswith("# "):
            module = entry[2:]
        else:
            found.append(told(entry, module))
    return found


TABLE = Path(__file__).with_name("mutations.txt")
MUTATIONS = read_mutations(TABLE.read_text(encoding="utf-8"))
# judged by their test files in the quick suite
QUICK = [
    "KL with the means added",
    "cosine without the square",
    "stride over the wrong alpha_bar",
    "beta for the posterior variance",
    "v with its sign flipped",
    "terms averaged, not added",
    "the last step adds noise",
    "sigma for the direction",
    "slerp that is linear",
    "EMA with its shares exchanged",
]


# The copy that is judged


@functools.cache
def workspace() -> Path:
    "A copy of what the judges need, one for each process of the court."
    folder = Path(tempfile.mkdtemp(prefix="court"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__", "_proc", ".ipynb_checkpoints")
    for name in ("ddpm_lit", "nbs", "tests", "results"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=skip)
    for name in ("pytest.ini", "settings.ini", "_quarto.yml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@functools.cache
def page_of(module: str, folder: Path = ROOT) -> Path:
    for path in sorted((folder / "nbs").rglob("[0-9]*.ipynb")):
        text = path.read_text(encoding="utf-8")
        if re.search(rf'"#\|\s*default_exp {module}(\\n)?"', text):
            return path
    raise SystemExit(f"no notebook exports {module}")


CLOSING = (")", "]", "}")


def tokens(text: str) -> list[tuple[str, int, int]]:
    """Words and signs with their places; spaces, line breaks and a comma before a
    closing bracket do not count, so that the layout of the code is free."""
    found = [(m[0], m.start(), m.end()) for m in re.finditer(r"\w+|[^\w\s]", text)]
    pairs = zip(found, [*found[1:], ("", 0, 0)])
    return [
        token for token, (after, *_) in pairs if token[0] != "," or after not in CLOSING
    ]


def replaced(text: str, mutation: Mutation, where: str) -> str:
    """The text with `old`, which stands in it once in whatever layout, replaced by
    `new`."""
    whole, words = tokens(text), [word for word, *_ in tokens(mutation.old)]
    spelled, first = [word for word, *_ in whole], words[0]
    starts = [i for i, word in enumerate(spelled) if word == first]
    places = [i for i in starts if spelled[i : i + len(words)] == words]
    if len(places) != 1:
        found = f"{mutation.old!r} occurs {len(places)} times"
        raise SystemExit(f"'{mutation.name}': {found} in {where}, not once")
    start, end = whole[places[0]][1], whole[places[0] + len(words) - 1][2]
    return text[:start] + mutation.new + text[end:]


def cells_of(path: Path) -> list[str]:
    "The sources of a notebook's cells; empty where a cell is not code."
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source if cell.cell_type == "code" else "" for cell in cells]


def mistaken_cell(path: Path, mutation: Mutation) -> tuple[int, str]:
    "The exported cell in which the mistake is made: its place and its new source."
    mark, cells = "\n# next cell\n", cells_of(path)
    exported = [i for i, c in enumerate(cells) if re.match(r"#\|\s*exports?\b", c)]
    whole = mark.join(cells[i] for i in exported) + "\n"
    changed = replaced(whole, mutation, path.name)[:-1].split(mark)
    (found,) = ((i, c) for i, c in zip(exported, changed) if c != cells[i])
    return found


@contextmanager
def mistake(folder: Path, mutation: Mutation):
    "The mistake, in the module and in the notebook that exports it, for a while."
    module = (folder / "ddpm_lit").joinpath(*mutation.module.split("."))
    module, page = module.with_suffix(".py"), page_of(mutation.module, folder)
    before = {path: path.read_bytes() for path in (module, page)}
    text = replaced(before[module].decode(), mutation, module.name)
    i, source = mistaken_cell(page, mutation)
    notebook = nbformat.read(page, as_version=4)
    notebook.cells[i].source = source
    try:
        module.write_text(text, encoding="utf-8")
        nbformat.write(notebook, page)
        yield
    finally:
        for path, data in before.items():
            path.write_bytes(data)


# The judges


def court(processes: int) -> ProcessPoolExecutor:
    "Processes that call `tried` and `noticed`, each asking one judge at a time."
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), prepare)


def prepare() -> None:
    """In a process of the court: import what takes long, once for all judges. A fork
    has no threads but its first, so there may be no others."""
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]
    os.environ.update(
        PYTHONDONTWRITEBYTECODE="1",
        NO_SHRINK="1",
        OMP_NUM_THREADS="1",
        HF_HUB_OFFLINE="1",
    )
    os.environ.pop("MPLBACKEND", None)
    sys.dont_write_bytecode = True
    for name in HEAVY:
        with suppress(ImportError):
            import_module(name)
    gc.freeze()  # what all judges share is not looked through again by each
    assert threading.active_count() == 1 and "ddpm_lit" not in sys.modules


def run_cell(source: str, name: str, names: dict) -> int:
    "0: it ran; 1: an assertion or a refused value; 3: any other exception."
    try:
        exec(compile(source, name, "exec"), names)
    except (AssertionError, ValueError) as error:
        print(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        return 1
    except BaseException:
        print(name, traceback.format_exc())
        return 3
    return 0


def run_cells(cells: list[str], first: int, names: dict) -> int:
    "Run cells until one fails: 0, or that cell's verdict."
    for i, source in enumerate(cells, first):
        if code := run_cell(source, f"cell {i}", names):
            return code
    return 0


def kept(folder: Path) -> dict[Path, bytes | None]:
    "All that lies in a folder, what contains before what is contained."
    found = sorted(folder.rglob("*"))
    return {path: path.read_bytes() if path.is_file() else None for path in found}


def put_back(folder: Path, before: dict[Path, bytes | None]) -> None:
    "Make a folder again what it was when it was `kept`."
    now = kept(folder)
    for path in reversed([path for path in now if path not in before]):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    for path, data in before.items():
        if data is None:
            path.mkdir(exist_ok=True)
        elif now.get(path) != data:
            path.write_bytes(data)


def limited() -> None:
    """End this process after so many seconds of work as the environment says: a mistake
    may loop. It may wait ten times as long, and take 8 GB."""
    if seconds := int(os.environ.get("MUTANT_LIMIT", 0)):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
        signal.alarm(10 * seconds)


def try_from_here(mutation: Mutation, cells: list[str], first: int, names: dict):
    """In a fork, go on with the mutated cell: exit code and report. What lies in
    files is put back; all else that the fork does, it does to itself."""
    scratch = Path(tempfile.gettempdir())
    report = scratch.parent / "report of a fork"
    assert threading.active_count() == 1, "a fork would leave threads behind"
    before = kept(scratch)
    sys.stdout.flush()
    with mistake(workspace(), mutation), open(report, "wb") as file:
        if not (pid := os.fork()):
            limited()
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
            code = run_cells(cells, first, names)
            sys.stdout.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    put_back(scratch, before)
    return code, report.read_text(encoding="utf-8", errors="replace")[-1500:]


def run_page(path: Path, mutations: tuple[Mutation, ...]) -> tuple[int, dict]:
    """Run a notebook's cells in one namespace, without a kernel. Before a cell with
    mistakes, each of them is tried in a fork: the cells above are the same for all,
    since no page imports the module that it exports. The page's own verdict, and
    theirs. Of a page that is known to pass, the cells after the last mistake are run
    by the forks alone."""
    import matplotlib

    matplotlib.use("agg")
    from IPython.display import display

    names = {"__name__": "__main__", "display": display, "get_ipython": lambda: None}
    cells = after = cells_of(path)
    verdicts = {}
    mistakes = [(m, *mistaken_cell(path, m)) for m in mutations]
    if already_passed():
        cells = cells[: max(at for _, at, _ in mistakes) + 1]
    for i, source in enumerate(cells):
        for m, at, changed in mistakes:
            if at == i:
                rest = [changed, *after[i + 1 :]]
                verdicts[m.name] = try_from_here(m, rest, i, names)
        if code := run_cell(source, f"cell {i}", names):
            return code, verdicts
    return 0, verdicts


def run_tests(name: str) -> int:
    """Run files of tests, or one of their tests. pytest's exit code is 1 if one of them
    failed, and more if they could not be run."""
    import pytest

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none is needed
    quiet = "-x -q --tb=line --disable-warnings -p no:cacheprovider".split()
    files = [f"tests/{file}" for file in name.split()]
    return int(pytest.main([*quiet, *files], plugins=PLUGINS))


def sit(
    scratch: Path, judge: str, module: str, mutations: tuple[Mutation, ...]
) -> None:
    """In a judge's own process: judge the package that lies in the workspace. The
    verdict on it is the exit code; those on the mutations of a page are written
    down."""
    code, folder = 3, workspace()
    try:
        with open(scratch / "report", "wb") as report:
            for stream in (1, 2):
                os.dup2(report.fileno(), stream)
        files = scratch / "files"
        files.mkdir()
        tempfile.tempdir = str(files)
        os.environ.update(PYTHONPATH=str(folder), TMPDIR=str(files))
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a fork cannot share a GPU
        sys.path.insert(0, str(folder))
        origin = find_spec("ddpm_lit").origin
        assert origin == str(folder / "ddpm_lit" / "__init__.py"), "another package"
        page = page_of(module, folder) if judge == PAGE else None
        os.chdir(page.parent if page else folder)
        if page is None:
            limited()
        if page:
            code, verdicts = run_page(page, mutations)
            (scratch / "verdicts").write_text(json.dumps(verdicts), encoding="utf-8")
        else:
            code = run_tests(judge)
    except BaseException:
        traceback.print_exc()
    sys.exit(code)


def verdict(judge: str, module: str, mutations: tuple[Mutation, ...] = ()):
    """What a judge says of the workspace, and of the mutations of his page. 0: all
    is well; 1: he found a mistake; anything else: he could not judge. With it, his
    words."""
    workspace()  # made here, so that the fork does not make one of its own
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        context = multiprocessing.get_context("fork")
        process = context.Process(target=sit, args=(scratch, judge, module, mutations))
        process.start()
        process.join()
        words = (scratch / "report").read_text(encoding="utf-8", errors="replace")
        tried = scratch / "verdicts"
        found = json.loads(tried.read_text("utf-8")) if tried.is_file() else {}
    return (process.exitcode, words[-1500:]), found


def fair(judge: str, module: str, said: tuple[int, str]) -> None:
    "A judge who condemns the unchanged package is no judge."
    code, words = said
    if code:
        raise SystemExit(f"{judge} of {module} fails without any mutation:\n{words}")


def already_passed() -> bool:
    """Whether it is known that the unchanged package passes: the quick suite has just
    run on this tree, as in .ci/run."""
    return "QUICK_SUITE_PASSED" in os.environ


@functools.cache
def innocent(test: str) -> None:
    "The unchanged package passes the test."
    if not already_passed():
        fair(test, "", verdict(test, "")[0])


def condemned(mutation: Mutation, judge: str, said: tuple[int, str]) -> bool:
    "Whether the judge noticed, and for the right reason."
    code, words = said
    if code not in (0, 1):
        what = f"'{mutation.name}' made {judge} crash instead of fail"
        raise SystemExit(f"{what}:\n{words}")
    return code == 1


def seen_by_page(mutations: tuple[Mutation, ...]) -> dict[str, bool]:
    "Which of the mutations of one module its page notices, in one run of the page."
    module = mutations[0].module
    said, found = verdict(PAGE, module, mutations)
    fair(PAGE, module, said)
    return {m.name: condemned(m, PAGE, found[m.name]) for m in mutations}


def seen_by_test(mutation: Mutation, test: str, known: bool = False) -> bool:
    """Whether the tests of a file, or one of them, notice the mutation. `known`:
    that they pass without it."""
    if not known:
        innocent(test)
    with mistake(workspace(), mutation):
        said, _ = verdict(test, mutation.module)
    return condemned(mutation, test, said)


def total() -> str:
    return f"{len(MUTATIONS)} mutations"


def by_module(mutations) -> dict[str, tuple[Mutation, ...]]:
    found: dict[str, tuple[Mutation, ...]] = {}
    for m in mutations:
        found[m.module] = (*found.get(m.module, ()), m)
    return found


def main(parts: list[str]) -> int:
    """Ask all judges of the chosen mutations; the number of those that one of them
    missed."""

    def chosen(m: Mutation) -> bool:
        return not parts or any(part in m.name or part == m.module for part in parts)

    clerk, missed = court(1), 0
    for module, mutations in by_module(filter(chosen, MUTATIONS)).items():
        of_page = tuple(m for m in mutations if PAGE in m.judges)
        seen = clerk.submit(seen_by_page, of_page).result() if of_page else {}
        for m in mutations:
            tests = [judge for judge in m.judges if judge != PAGE]
            asked = [clerk.submit(seen_by_test, m, test).result() for test in tests]
            found = all([seen.get(m.name, True), *asked])
            missed += not found
            word, judges = "caught" if found else "MISSED", " and ".join(m.judges)
            print(f"{word}  {module:10} {m.name} ({judges})", flush=True)
    return missed


if __name__ == "__main__":
    missed = main(sys.argv[1:])
    print(f"{missed} missed")
    sys.exit(bool(missed))
