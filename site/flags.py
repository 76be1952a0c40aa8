"""The flags of `ddpm-lit`, read from the source of the dataclasses that the command line
is made into. Nothing is imported."""

import ast
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from source import Module, Parameter, home, modules

VERBS = ("Train", "Resume", "Sample", "Evaluate")
TITLES = {
    "train": "the training",
    "noise": "the schedule",
    "unet": "the network",
    "common": "where and how",
}
WORDS = {"int": "INT", "float": "FLOAT", "str": "STR", "Path": "PATH"}


@dataclass(frozen=True)
class Flag:
    "A flag, or a word without one."

    call: str  # such as --batch-size INT
    about: str
    default: str  # as typed; empty for none
    required: bool


# What a flag takes


def annotations(module: Module, node: ast.ClassDef) -> dict[str, ast.expr]:
    "The types of the fields of a class and of those that it is made from, unread."
    found = {}
    for there, base in module.base_nodes(node):
        found |= annotations(there, base)
    own = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    return found | {ast.unparse(part.target): part.annotation for part in own}


def resolved(node: ast.expr, module: Module) -> ast.expr:
    "A type, with what a name of the module stands for."
    if isinstance(node, ast.Name):
        for there in (module, modules()["command.flags"], modules()["configs"]):
            known = there.nodes.get(node.id)
            if isinstance(known, ast.Assign):
                return known.value
    return node


def options(node: ast.expr, module: Module) -> dict[str, str]:
    "What `conf.arg` says of a flag: its name, and what stands for its value."
    node = resolved(node, module)
    if not isinstance(node, ast.Subscript) or ast.unparse(node.value) != "Annotated":
        return {}
    found: dict[str, str] = {}
    for part in node.slice.elts[1:]:  # type: ignore[attr-defined]
        part = resolved(part, module)
        for word in part.keywords if isinstance(part, ast.Call) else []:
            if isinstance(word.value, ast.Constant):
                found[word.arg or ""] = str(word.value.value)
    return found


def takes(node: ast.expr, module: Module) -> str:
    "What may follow a flag: the choices, or a word for the kind of value."
    node = resolved(node, module)
    text = ast.unparse(node)
    if isinstance(node, ast.BinOp):
        sides = (takes(node.left, module), takes(node.right, module))
        return "|".join(sides)
    if isinstance(node, ast.Subscript):
        base = ast.unparse(node.value)
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if base == "Literal":
            return "|".join(str(ast.literal_eval(one)) for one in inside)
        if base == "Annotated":
            return takes(inside[0], module)
        if base == "tuple":
            word = takes(inside[0], module)
            return f"{word} [{word} ...]"
    return WORDS.get(text, text)


def call(name: str, node: ast.expr, module: Module, said: dict[str, str]) -> str:
    flag = "--" + said.get("name", name).replace("_", "-")
    plain = ast.unparse(resolved(node, module))
    if ast.unparse(node) == "bool":
        return f"{flag}, --no-{flag[2:]}"
    if "FlagCreatePairsOff" in plain or "Switch" in plain:
        return flag
    return f"{flag} {said.get('metavar') or takes(node, module)}"


def typed(default: str) -> str:
    "A default as one would type it."
    if not default:
        return ""
    with suppress(ValueError, SyntaxError):
        value = ast.literal_eval(default)
        return plain(value)
    return default


def plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, float) and value != 0 and abs(value) < 1e-2:
        return f"{value:g}".replace("e-0", "e-")
    return str(value)


# Verbs


def flag(module: Module, kinds: dict[str, ast.expr], one: Parameter) -> Flag:
    "A field as a flag."
    said = options(kinds[one.name], module)
    needed = not one.default
    words = (
        one.name.upper() if needed else call(one.name, kinds[one.name], module, said)
    )
    return Flag(words, one.comment, typed(one.default), needed)


def groups(module: Module, node: ast.ClassDef, title: str) -> Iterator[dict[str, Any]]:
    "The flags of a class, then those of the classes among its fields."
    kinds = annotations(module, node)
    mine, within = [], []
    for one in module.fields(node):
        there = home().get(one.kind)
        if there is not None and one.kind[0].isupper():
            within.append((there, there.nodes[one.kind], one.name))
        else:
            mine.append(flag(module, kinds, one))
    mine.sort(key=lambda found: not found.required)
    yield {
        "id": title,
        "title": TITLES.get(title, title),
        "about": ast.get_docstring(node) or "",
        "flags": mine,
    }
    for there, inner, name in within:
        yield from groups(there, inner, name)


def verbs() -> list[dict[str, Any]]:
    "Each verb with its flags, in groups."
    found = []
    for name in VERBS:
        module = home()[name]
        first, *others = groups(module, module.nodes[name], "")
        about = " ".join(first["about"].split())
        words = [one.call for one in first["flags"] if one.required]
        found.append(
            {
                "name": name.lower(),
                "use": " ".join(["ddpm-lit", name.lower(), *words, "[flags]"]),
                "about": about,
                "groups": [first | {"about": ""}, *others],
            }
        )
    return found


# Presets


def values(module: Module, known: dict[str, Any]) -> dict[str, Any]:
    """What the assignments of a module make, where they need nothing but `known`:
    its configurations are dictionaries then."""
    future = "from __future__ import annotations\n"
    for node in module.tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.FunctionDef):
            with suppress(NameError):
                exec(future + ast.unparse(node), known)
    return known


def presets() -> dict[str, Any]:
    "What the presets of `train` set otherwise than the defaults: a row for each flag."
    named = lambda **given: given
    networks = values(modules()["configs"], {"UNetConfig": named})["PRESETS"]
    made = values(
        modules()["command.recipes"],
        {
            "UNetConfig": named,
            "TrainConfig": named,
            "Train": named,
            "ScheduleConfig": lambda schedule: {"schedule": schedule},
            "NETWORKS": networks,
            "replace": lambda old, **new: old | new,
        },
    )["PRESETS"]
    flat = {name: flattened(preset) for name, preset in made.items()}
    rows = dict.fromkeys(flag for preset in flat.values() for flag in preset)
    usual = usual_values()
    return {
        "names": list(flat),
        "rows": [
            (
                "--" + row.replace("_", "-"),
                [plain(flat[name].get(row, usual[row])) for name in flat],
            )
            for row in rows
        ],
    }


def flattened(preset: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in preset.items():
        if isinstance(value, dict):
            found |= value
        elif name != "data":
            found[name] = value
    return found


def usual_values() -> dict[str, Any]:
    "The defaults of the fields."
    found = {}
    for name in ("Train", "TrainConfig", "ScheduleConfig", "UNetConfig"):
        for one in home()[name].parameters(name):
            with suppress(ValueError, SyntaxError):
                found[one.name] = ast.literal_eval(one.default)
    return found
