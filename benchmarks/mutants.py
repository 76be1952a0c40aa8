"""Mistakes that a program makes, not a person: every constant, operator, comparison,
argument and default of the exported functions of the mathematics and of sampling,
changed one at a time, before the page and the tests that own them.

    python benchmarks/mutants.py [--modules gaussian ...] [--share 1.0] [--seed 0]

A mistake counts as noticed if the page or one of the test files of its module fails or
does not come to an end. The score of each module and all survivors are written to
results/mutants.json; why a survivor changes nothing is said in mutants-equivalent.json,
by hand. Hours on two cores: it is not part of the tests, which have a list of their own
(tests/mutations.txt)."""

import argparse
import ast
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import as_completed
from copy import deepcopy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import mutations as M  # noqa: E402
from origin import origin  # noqa: E402

MODULES = """gaussian schedule forward posterior prediction elbo oracle
ddpm ddim solvers guidance editing""".split()
TESTS = {
    "gaussian": ["test_forward_posterior.py"],
    "schedule": ["test_schedule.py"],
    "forward": ["test_forward_posterior.py"],
    "posterior": ["test_forward_posterior.py"],
    "prediction": ["test_prediction.py"],
    "elbo": ["test_elbo_oracle.py"],
    "oracle": ["test_elbo_oracle.py"],
    "ddpm": ["test_samplers.py"],
    "ddim": ["test_samplers.py"],
    "solvers": ["test_solvers.py"],
    "guidance": ["test_guidance.py"],
    "editing": ["test_editing.py"],
}
LIMIT = 120  # seconds that a mistake may go on unnoticed
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


def near_misses(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    "What could stand in the place of a node, and what that would be called."
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} + 1", ast.Constant(node.value + 1)
        if node.value not in (0, 1):
            yield f"-{node.value}", ast.UnaryOp(ast.USub(), node)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"not {node.value}", ast.Constant(not node.value)
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        swapped = ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)
        yield f"{type(node.op).__name__} swapped", swapped
    elif isinstance(node, ast.BoolOp):
        yield "and/or swapped", ast.BoolOp(SWAPS[type(node.op)](), node.values)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        for i, op in enumerate(node.ops):
            ops = [*node.ops[:i], SWAPS[type(op)](), *node.ops[i + 1 :]]
            name = f"{type(op).__name__} changed"
            yield name, ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield f"{type(node.op).__name__} dropped", node.operand
    elif isinstance(node, ast.IfExp):
        yield "condition turned", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.If):
        yield "if never", ast.If(ast.Constant(False), node.body, node.orelse)
    elif isinstance(node, ast.Call):
        yield from without_an_argument(node)


def without_an_argument(call: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    if getattr(call.func, "id", "") == "require":
        yield "require dropped", ast.Constant(None)
        return
    for i, given in enumerate(call.keywords):
        if given.arg:
            rest = [*call.keywords[:i], *call.keywords[i + 1 :]]
            yield f"{given.arg}= dropped", ast.Call(call.func, call.args, rest)
    if len(call.args) > 1:
        rest = ast.Call(call.func, call.args[:-1], call.keywords)
        yield "last argument dropped", rest


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


def mutants(module: str) -> list[M.Mutation]:
    "All mistakes in the public classes and functions of a module."
    text = (ROOT / "ddpm_lit" / f"{module}.py").read_text("utf-8")
    made = []
    for top in ast.parse(text).body:
        if not isinstance(top, (ast.FunctionDef, ast.ClassDef)):
            continue
        source = ast.get_source_segment(text, top)
        first = min([top, *top.decorator_list], key=lambda node: node.lineno)
        head = "\n".join(text.splitlines()[first.lineno - 1 : top.lineno - 1])
        for node, path in places(top):
            if not path:
                continue
            for words, new in near_misses(node):
                other = ast.unparse(changed(top, path, new))
                line = getattr(node, "lineno", top.lineno) - top.lineno + 1
                name = f"{module}.{top.name}, line {line}: {words}"
                if f"{name}" in {m.name for m in made}:
                    name += f" (column {getattr(node, 'col_offset', 0)})"
                old = f"{head}\n{source}" if head else source
                made.append(M.Mutation(name, module, old, other, (M.PAGE,)))
    return made


# The judges


def by_page(chosen: tuple[M.Mutation, ...]) -> dict[str, bool]:
    "Which of one module's mistakes its page notices."
    said, found = M.verdict(M.PAGE, chosen[0].module, chosen)
    M.fair(M.PAGE, chosen[0].module, said)
    return {m.name: found[m.name][0] != 0 for m in chosen}


def by_tests(mutation: M.Mutation) -> bool:
    "Whether the test files of its module notice it."
    with M.mistake(M.workspace(), mutation):
        files = TESTS[mutation.module]
        return any(M.verdict(file, mutation.module)[0][0] != 0 for file in files)


def judged(chosen: list[M.Mutation], processes: int) -> dict[str, str]:
    "Who noticed each mistake: page, tests, or nobody."
    court, verdicts = M.court(processes), {}
    waiting = {}
    groups = []
    for mutations in M.by_module(chosen).values():
        groups += [mutations[i : i + 25] for i in range(0, len(mutations), 25)]
    for group in groups:
        waiting[court.submit(by_page, group)] = group
    for done in as_completed(list(waiting)):
        for m in waiting[done]:
            verdicts[m.name] = "page" if done.result()[m.name] else ""
        noticed = sum(map(bool, verdicts.values()))
        print(f"{noticed} of {len(verdicts)} noticed by pages", flush=True)
    left = [m for m in chosen if not verdicts[m.name]]
    asked = {court.submit(by_tests, m): m for m in left}
    for done in as_completed(asked):
        verdicts[asked[done].name] = "tests" if done.result() else "nobody"
        print(verdicts[asked[done].name], asked[done].name, flush=True)
    court.shutdown()
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--modules", nargs="+", default=MODULES, choices=MODULES)
    parser.add_argument("--share", type=float, default=1.0, help="of all mistakes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--count", action="store_true", help="only count them")
    args = parser.parse_args()
    os.environ["MUTANT_LIMIT"] = str(LIMIT)
    chosen = [m for module in args.modules for m in mutants(module)]
    counts = {name: len(ms) for name, ms in M.by_module(chosen).items()}
    print(counts, sum(counts.values()))
    if args.count:
        return
    draw = random.Random(args.seed)
    chosen = [m for m in chosen if draw.random() < args.share]
    began = time.time()
    verdicts = judged(chosen, args.processes)
    write(args, chosen, verdicts, time.time() - began)


def write(
    args: argparse.Namespace,
    chosen: list[M.Mutation],
    verdicts: dict[str, str],
    seconds: float,
) -> None:
    "results/mutants.json: the score of each module, and who survived."
    reasons = ROOT / "benchmarks" / "mutants-equivalent.json"
    known = json.loads(reasons.read_text("utf-8")) if reasons.is_file() else {}
    path = ROOT / "results" / "mutants.json"
    old = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    modules = old.get("modules", {})
    for module, group in M.by_module(chosen).items():
        survived = [m.name for m in group if verdicts[m.name] == "nobody"]
        modules[module] = {
            "mistakes": len(group),
            "noticed": len(group) - len(survived),
            "by page": sum(verdicts[m.name] == "page" for m in group),
            "survived": {name: known.get(name, "") for name in survived},
        }
    facts = {"share": args.share, "seed": args.seed, "seconds": round(seconds)}
    command = "python benchmarks/mutants.py"
    made = {"origin": origin(command, args.seed), **facts, "modules": modules}
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
