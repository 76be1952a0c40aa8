"""Mistakes that a program makes, not a person: every constant, operator, comparison,
argument and default of the functions of the mathematics and of sampling, changed one
at a time, before the tests and the page that own them.

    python benchmarks/mutants.py [--modules gaussian ...] [--survivors] [--changed]

A mistake counts as noticed if one of the test files of its module fails, or else its
page, or if either does not come to an end. Each module is written to
results/mutants.json as soon as it is done, function by function; `--survivors` asks
again about what survived without a reason, `--changed` about functions whose code is
another one now. The reasons, why a survivor changes nothing, stand by hand in
mutants-equivalent.json. It takes an
hour or two and is not part of the tests, which have a list of their own
(tests/mutations.txt)."""

import argparse
import ast
import functools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha1
from itertools import accumulate
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import mutations as M  # noqa: E402
from origin import origin  # noqa: E402

MODULES = """gaussian schedule forward posterior prediction elbo oracle
ddpm ddim solvers guidance editing""".split()
TESTS = {  # asked first
    "gaussian": "test_forward_posterior.py",
    "schedule": "test_schedule.py",
    "forward": "test_forward_posterior.py",
    "posterior": "test_forward_posterior.py",
    "prediction": "test_prediction.py",
    "elbo": "test_elbo_oracle.py",
    "oracle": "test_elbo_oracle.py",
    "ddpm": "test_samplers.py",
    "ddim": "test_samplers.py",
    "solvers": "test_solvers.py",
    "guidance": "test_guidance.py",
    "editing": "test_editing.py",
}
COMPILED = "test_compiled.py"  # asked next; pages last, which take longest
FEW = 20  # mistakes for which the tests are not watched
NO_TESTS = 5  # an exit code of pytest
BUDGET = 6  # seconds of work of the tests that are asked, the cheapest first
LIMITS = {"tests": 12, "page": 120}  # what one may take in all: a mistake can loop
RESULTS = ROOT / "results" / "mutants.json"
REASONS = ROOT / "benchmarks" / "mutants-equivalent.json"
SWAPS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


# The mistakes


def is_words(node: ast.AST) -> bool:
    "What is only said: docstrings, messages of refusals, annotations."
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Raise):
        return True
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "warn"


def places(node: ast.AST, path: tuple = ()) -> Iterator[tuple[ast.AST, tuple]]:
    "All nodes that compute, with the way to each from the top."
    yield node, path
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
            value = node.args[:1] if name == "args" else []
        children = value if isinstance(value, list) else [value]
        for i, child in enumerate(children):
            if isinstance(child, ast.AST) and not is_words(child):
                yield from places(child, (*path, (name, i, isinstance(value, list))))


def near_misses(node: ast.AST) -> Iterator[ast.AST]:
    "What could stand in the place of a node."
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1)
        if node.value not in (0, 1):
            yield ast.UnaryOp(ast.USub(), node)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        yield ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(SWAPS[type(node.op)](), node.values)
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            ops = [*node.ops[:i], SWAPS[type(op)](), *node.ops[i + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.If):
        yield ast.If(ast.Constant(False), node.body, node.orelse)
    elif isinstance(node, ast.Call):
        yield from without_an_argument(node)


def without_an_argument(call: ast.Call) -> Iterator[ast.AST]:
    if getattr(call.func, "id", "") == "require":
        yield ast.Constant(None)
        return
    for i, given in enumerate(call.keywords):
        if given.arg:
            rest = [*call.keywords[:i], *call.keywords[i + 1 :]]
            yield ast.Call(call.func, call.args, rest)
    if len(call.args) > 1:
        yield ast.Call(call.func, call.args[:-1], call.keywords)


def changed(tree: ast.AST, path: tuple, new: ast.AST) -> ast.AST:
    "A copy of the tree with another node in one place."
    copy = deepcopy(tree)
    node = copy
    for name, i, listed in path[:-1]:
        node = getattr(node, name)[i] if listed else getattr(node, name)
    name, i, listed = path[-1]
    if listed:
        getattr(node, name)[i] = new
    else:
        setattr(node, name, new)
    return ast.fix_missing_locations(copy)


# The names: what stood there, and what stands there now

SHORT = 60  # characters that are quoted at most
SIMPLE = (ast.expr, ast.keyword, ast.Return, ast.Assign, ast.AnnAssign, ast.AugAssign)


def at(tree: ast.AST, path: tuple) -> list[ast.AST]:
    "The nodes on the way to a place, the tree itself first."
    nodes = [tree]
    for name, i, listed in path:
        value = getattr(nodes[-1], name)
        nodes.append(value[i] if listed else value)
    return nodes


def quoted(before: ast.AST, after: ast.AST) -> str:
    "Both in one line; of long ones what differs, and a little around it."
    one, two = (" ".join(ast.unparse(node).split()) for node in (before, after))
    if max(len(one), len(two)) > SHORT:
        first = len(os.path.commonprefix([one, two]))
        same = len(os.path.commonprefix([one[:first:-1], two[:first:-1]]))
        one, two = (
            cut(words, first - 20, len(words) - same + 20) for words in (one, two)
        )
    return f"{one} → {two}"


def cut(words: str, first: int, last: int) -> str:
    left = "…" if first > 0 else ""
    right = "…" if last < len(words) else ""
    return left + words[max(0, first) : last] + right


def default_of(before: list[ast.AST], path: tuple) -> str:
    "'T=', if the place is the default of the parameter T."
    for node, (name, i, _) in zip(before, path):
        if name == "defaults":
            every = [*node.posonlyargs, *node.args]
            return f"{every[len(every) - len(node.defaults) + i].arg}="
        if name == "kw_defaults":
            return f"{node.kwonlyargs[i].arg}="
    return ""


def told(tree: ast.AST, other: ast.AST, path: tuple) -> str:
    "One line: the place with a little of what is around it, before and after."
    before, after = at(tree, path), at(other, path)
    if isinstance(before[-1], ast.If):
        return f"if {cut(ast.unparse(before[-1].test), 0, SHORT)} → if False"
    if getattr(getattr(before[-1], "func", None), "id", "") == "require":
        return f"require({cut(ast.unparse(before[-1].args[0]), 0, SHORT)}) → nothing"
    place = len(path)
    while place > 1 and isinstance(before[place - 1], SIMPLE):
        longer = ast.unparse(before[place - 1]), ast.unparse(after[place - 1])
        if max(map(len, longer)) > SHORT or "\n" in longer[0]:
            break
        place -= 1
    return default_of(before, path) + quoted(before[place], after[place])


@dataclass(frozen=True)
class Mistake(M.Mutation):
    "A mutation, with the function or class at the top that it is made in."

    top: str
    in_body: bool  # whether only calls can notice, and not the making of a class


def method_of(nodes: list[ast.AST]) -> tuple[str, bool]:
    "'.step' where the nodes lead into a method; whether they lead into a body."
    inner = [node for node in nodes[1:] if isinstance(node, ast.FunctionDef)]
    name = f".{inner[0].name}" if isinstance(nodes[0], ast.ClassDef) and inner else ""
    return name, isinstance(nodes[0], ast.FunctionDef) or bool(inner)


def mutants(module: str) -> list[Mistake]:
    "All mistakes in the functions and classes of a module."
    text = (ROOT / "ddpm_lit" / f"{module}.py").read_text("utf-8")
    made: dict[str, Mistake] = {}
    found: Counter[str] = Counter()
    for top in tops(text):
        source = ast.get_source_segment(text, top)
        first = min([top, *top.decorator_list], key=lambda node: node.lineno)
        head = "\n".join(text.splitlines()[first.lineno - 1 : top.lineno - 1])
        old = f"{head}\n{source}" if head else source
        for node, path in places(top):
            for new in near_misses(node) if path else ():
                other = changed(top, path, new)
                method, in_body = method_of(at(top, path))
                name = f"{module}.{top.name}{method}: {told(top, other, path)}"
                found[name] += 1
                name += f" ({found[name]})" if found[name] > 1 else ""
                made[name] = Mistake(
                    name, module, old, ast.unparse(other), (), top.name, in_body
                )
    return list(made.values())


def tops(text: str) -> list[ast.FunctionDef | ast.ClassDef]:
    both = ast.FunctionDef, ast.ClassDef
    return [top for top in ast.parse(text).body if isinstance(top, both)]


def versions(module: str) -> dict[str, str]:
    "A short hash of the code of each function and class, whatever its comments."
    found = {}
    for top in tops((ROOT / "ddpm_lit" / f"{module}.py").read_text("utf-8")):
        for node in ast.walk(top):
            if isinstance(body := getattr(node, "body", None), list):
                node.body = [line for line in body if not is_words(line)]
        found[top.name] = sha1(ast.dump(top).encode()).hexdigest()[:10]
    return found


# The tests: those that call the function, beginning with those that noticed before


class Watch:
    "A pytest plugin that writes down how long each test takes and what it calls."

    def __init__(self, module: str) -> None:
        self.path = f"ddpm_lit/{module}.py"
        text = (ROOT / self.path).read_text("utf-8")
        self.lines = {}
        for top in tops(text):
            first = min(n.lineno for n in [top, *top.decorator_list])
            lines = range(first, top.end_lineno + 1)
            self.lines |= dict.fromkeys(lines, top.name)
        self.seen: dict[str, dict] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        calls = set()

        def look(frame, event, arg):  # at each call; None: not at its lines
            if frame.f_code.co_filename.endswith(self.path):
                calls.add(self.lines.get(frame.f_code.co_firstlineno, ""))

        began = time.process_time()
        sys.settrace(look)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            seconds = time.process_time() - began
            self.seen[item.nodeid] = {"seconds": seconds, "calls": sorted(calls)}

    def pytest_sessionfinish(self):
        path = M.workspace() / "watched.json"
        path.write_text(json.dumps(self.seen), "utf-8")


class Order:
    "A pytest plugin that runs the given tests alone, in this order."

    def __init__(self, names: list[str]) -> None:
        self.place = {name: i for i, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if item.nodeid in self.place]
        items.sort(key=lambda item: self.place[item.nodeid])

    def pytest_runtest_logreport(self, report):
        if report.failed:
            path = M.workspace() / "noticed.txt"
            path.write_text(report.nodeid, "utf-8")


class Newest:
    "A pytest plugin that runs the last tests of a file first, as long as it may."

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items.reverse()
        self.end = time.process_time() + BUDGET

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        return True if time.process_time() > self.end else None  # passed over

    pytest_runtest_logreport = Order.pytest_runtest_logreport


@functools.cache
def watched(files: str, module: str) -> dict[str, dict]:
    "What the tests take and what they call of a module; without a mistake they pass."
    os.environ["MUTANT_LIMIT"] = "0"
    M.PLUGINS[:] = [Watch(module)]
    sys.dont_write_bytecode = False  # each judge would parse the tests anew
    M.fair(files, module, M.verdict(files, module)[0])
    sys.dont_write_bytecode = True
    for path in (M.workspace() / "ddpm_lit" / "__pycache__").glob(f"{module}.*"):
        path.unlink()
    return json.loads((M.workspace() / "watched.json").read_text("utf-8"))


KILLERS: dict[str, list[str]] = {}


def by_tests(mistake: Mistake, files: str) -> str:
    "The test that notices it, or '' if none does."
    seen, killers = watched(files, mistake.module), KILLERS.setdefault(mistake.top, [])
    chosen = [
        name
        for name, test in seen.items()
        if not mistake.in_body or mistake.top in test["calls"]
    ]
    chosen.sort(key=lambda name: seen[name]["seconds"])
    chosen.sort(key=lambda name: killers.index(name) if name in killers else 999)
    sums = accumulate(seen[name]["seconds"] for name in chosen)
    chosen = [name for name, seconds in zip(chosen, sums) if seconds < BUDGET]
    name = noticed_by(mistake, files, Order(chosen)) if chosen else ""
    if name in seen:
        killers[:] = [name, *(other for other in killers if other != name)]
    return name


def by_newest(mistake: Mistake, files: str) -> str:
    "The same for a few mistakes, for which the tests need not be watched first."
    may_be_judged(files, mistake.module)
    return noticed_by(mistake, files, Newest())


@functools.cache
def may_be_judged(files: str, module: str) -> None:
    M.PLUGINS[:] = [Newest()]
    M.fair(files, module, M.verdict(files, module)[0])


def noticed_by(mistake: Mistake, files: str, plugin: object) -> str:
    M.PLUGINS[:] = [plugin]
    noticed = M.workspace() / "noticed.txt"
    noticed.unlink(missing_ok=True)
    os.environ["MUTANT_LIMIT"] = str(LIMITS["tests"])
    with in_module(mistake):
        code, _ = M.verdict(files, mistake.module)[0]
    if code in (0, NO_TESTS):
        return ""
    return noticed.read_text("utf-8") if noticed.is_file() else f"exit code {code}"


@contextmanager
def in_module(mistake: Mistake) -> Iterator[None]:
    "The mistake in the module alone, which is what tests import."
    path = M.workspace() / "ddpm_lit" / f"{mistake.module}.py"
    before = path.read_bytes()
    path.write_text(M.replaced(before.decode(), mistake, path.name), "utf-8")
    try:
        yield
    finally:
        path.write_bytes(before)


# The page


def by_page(chosen: tuple[Mistake, ...]) -> dict[str, int]:
    "Exit codes of one module's page with each of these mistakes: 0 is unnoticed."
    os.environ["MUTANT_LIMIT"] = str(LIMITS["page"])
    said, found = M.verdict(M.PAGE, chosen[0].module, chosen)
    M.fair(M.PAGE, chosen[0].module, said)
    return {m.name: found[m.name][0] for m in chosen}


def judged(
    chosen: list[Mistake], court: ProcessPoolExecutor, quick: bool = False
) -> dict[str, str]:
    "Who noticed each mistake: tests or page, or nobody."
    verdicts: dict[str, str] = {}

    def ask_tests(of: Callable[[Mistake], str]) -> None:
        by = by_tests if len(left()) > FEW else by_newest
        asked = {court.submit(by, m, of(m)): m for m in left()}
        for done in as_completed(asked):
            name = asked[done].name
            verdicts[name] = "tests" if done.result() else "nobody"
            print(f"{name}   [{done.result() or 'no test'}]", flush=True)

    def ask_page() -> None:
        groups = [tuple(left()[i : i + 25]) for i in range(0, len(left()), 25)]
        for done in as_completed([court.submit(by_page, group) for group in groups]):
            for name, code in done.result().items():
                verdicts[name] = "page" if code else "nobody"
                print(f"{name}   [page: {code}]", flush=True)

    def left() -> list[Mistake]:
        return [m for m in chosen if verdicts.get(m.name, "nobody") == "nobody"]

    ask_tests(lambda m: TESTS[m.module])
    if not quick:
        ask_tests(lambda m: COMPILED)
        ask_page()
    return verdicts


# The results


def read() -> dict[str, dict[str, dict]]:
    "results/mutants.json: module, function, and what became of its mistakes."
    if not RESULTS.is_file():
        return {}
    return json.loads(RESULTS.read_text("utf-8"))["modules"]


def wanted(module: str, args: argparse.Namespace) -> list[Mistake]:
    "The mistakes of a module that are to be judged."
    made, old, now = mutants(module), read().get(module, {}), versions(module)
    if not (args.survivors or args.changed):
        return made
    reasons = json.loads(REASONS.read_text("utf-8")) if REASONS.is_file() else {}
    left = {name for function in old.values() for name in function["survived"]}
    known = {name: function["version"] for name, function in old.items()}
    return [
        m
        for m in made
        if (args.survivors and m.name in left - set(reasons))
        or (args.changed and known.get(m.top) != now[m.top])
    ]


def merged(old: dict, made: list[Mistake], verdicts: dict[str, str]) -> dict:
    "The functions of a module, with new verdicts where there are some."
    functions = {}
    now = versions(made[0].module)
    for top in dict.fromkeys(m.top for m in made):
        mine = [m.name for m in made if m.top == top]
        known = old.get(top, {"tests": 0, "page": 0, "survived": []})
        again = [name for name in mine if name in verdicts]
        if len(again) == len(mine):
            known = {"tests": 0, "page": 0, "survived": []}
        count = Counter(verdicts[name] for name in again)
        kept = [name for name in known["survived"] if name not in verdicts]
        lost = [name for name in again if verdicts[name] == "nobody"]
        functions[top] = {
            "version": now[top],
            "mistakes": len(mine),
            "tests": known["tests"] + count["tests"],
            "page": known["page"] + count["page"],
            "survived": kept + lost,
        }
    return functions


def write(module: str, functions: dict, seed: int = 0) -> None:
    modules = {**read(), module: functions}
    modules = {name: modules[name] for name in MODULES if name in modules}
    made = {**origin("python benchmarks/mutants.py", seed), "modules": modules}
    RESULTS.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", "utf-8")


def row(module: str, functions: dict) -> str:
    "The row of a module in the table of CONTRIBUTING.md."
    total = {
        key: sum(f[key] for f in functions.values())
        for key in ("mistakes", "tests", "page")
    }
    lost = sum(len(f["survived"]) for f in functions.values())
    share = 100 * (total["mistakes"] - lost) / total["mistakes"]
    cells = f"`{module}`", *total.values(), lost, f"{share:.1f} %"
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--modules", nargs="+", default=MODULES, choices=MODULES)
    parser.add_argument(
        "--survivors", action="store_true", help="without a reason, again"
    )
    parser.add_argument("--changed", action="store_true", help="only changed functions")
    parser.add_argument("--quick", action="store_true", help="ask only the first tests")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--count", action="store_true", help="only count them")
    args = parser.parse_args()
    chosen = {module: wanted(module, args) for module in args.modules}
    print({module: len(mistakes) for module, mistakes in chosen.items()})
    if args.count:
        return
    with M.court(args.processes) as court:
        for module, mistakes in chosen.items():
            verdicts = judged(mistakes, court, args.quick)
            functions = merged(read().get(module, {}), mutants(module), verdicts)
            write(module, functions)
            print(row(module, functions), flush=True)


if __name__ == "__main__":
    main()
