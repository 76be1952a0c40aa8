"""The package as its source tells of it: names, parameters with the comments behind
or above them, methods, docstrings. Nothing is imported."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

from contents import ROOT

PACKAGE = ROOT / "ddpm_lit"
PROPERTIES = {"property", "cached_property"}
# what a parameter of this type is, where its comment does not say
USUAL = {
    "NoiseSchedule": "the noise schedule",
    "Model": "the network",
    "Batch": "images that are drawn together",
    "Denoiser": "the network, with its schedule",
    "Prediction": "what the network sees in x_t",
    "Sampler": "how to walk from noise to data",
    "ImageData": "the images",
    "UNet": "the network",
    "Run": "the trained network",
    "RunFacts": "what is known of the model",
    "TrainConfig": "how to train",
    "DrawConfig": "how to draw",
}
Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Parameter:
    "A parameter of a function, or a field of a dataclass."

    name: str  # with its stars
    kind: str = ""  # the annotation, as written
    default: str = ""  # as written; empty for none
    comment: str = ""
    after_star: bool = False  # to be named in a call

    @property
    def code(self) -> str:
        "As in a signature."
        text = f"{self.name}: {self.kind}" if self.kind else self.name
        if not self.default:
            return text
        return f"{text} = {self.default}" if self.kind else f"{text}={self.default}"


@dataclass(frozen=True)
class Entry:
    "A function, a class, a method, a property or a constant."

    name: str  # without its class
    module: str
    kind: str  # function, class, method, property, constant, type
    line: int
    owner: str = ""  # the class of a method
    doc: str = ""
    parameters: tuple[Parameter, ...] = ()
    returns: Parameter | None = None
    refusals: tuple[str, ...] = ()
    members: tuple["Entry", ...] = field(default=(), repr=False)
    bases: tuple[str, ...] = ()
    function: str = ""  # the function that a method is, where it stands by itself
    value: str = ""  # of a constant
    fields: bool = False  # whether the parameters of a class are what it holds

    @property
    def full(self) -> str:
        "Its name with that of its class."
        return f"{self.owner}.{self.name}" if self.owner else self.name

    @property
    def id(self) -> str:
        return self.full.lower()

    @property
    def sentences(self) -> list[str]:
        "Those of the docstring, without its breaks of lines."
        text = " ".join(self.doc.split())
        return re.split(r"(?<=[.!?]) (?=[A-Z`])", text) if text else []

    @property
    def errors(self) -> list[str]:
        "The sentences on errors, and what is refused."
        return [*filter(is_error, self.sentences), *self.refusals]

    @property
    def about(self) -> str:
        "The docstring without its sentences on errors."
        return " ".join(one for one in self.sentences if not is_error(one))

    @property
    def file(self) -> str:
        return f"ddpm_lit/{self.module.replace('.', '/')}.py"


def is_error(sentence: str) -> bool:
    return re.match(r"(Raises |Warns |[A-Z]\w*Error\b)", sentence) is not None


# Comments


@dataclass(frozen=True)
class Comments:
    "The comments of a file, by line."

    behind: dict[int, str]  # code stands before them
    alone: dict[int, str]

    def of(self, start: int, end: int) -> str:
        "The comment above a thing, and the one behind it."
        above = []
        while start - 1 in self.alone:
            start -= 1
            above.insert(0, self.alone[start])
        return " ".join([*above, self.behind.get(end, "")]).strip()


def comments(text: str) -> Comments:
    behind, alone = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            words = token.string.lstrip("#").strip()
            made = alone if token.line.strip().startswith("#") else behind
            if not words.startswith("%%"):
                made[token.start[0]] = words
    return Comments(behind, alone)


# Functions


def named_parameters(node: ast.FunctionDef) -> Iterator[tuple[ast.arg, str, str, bool]]:
    "Each argument with its name, its default, and whether it must be named."
    spec = node.args
    plain = [*spec.posonlyargs, *spec.args]
    missing: list[ast.expr | None] = [None] * (len(plain) - len(spec.defaults))
    for arg, default in zip(plain, [*missing, *spec.defaults]):
        yield arg, arg.arg, written(default), False
    if spec.vararg:
        yield spec.vararg, f"*{spec.vararg.arg}", "", False
    for arg, default in zip(spec.kwonlyargs, spec.kw_defaults):
        yield arg, arg.arg, written(default), True
    if spec.kwarg:
        yield spec.kwarg, f"**{spec.kwarg.arg}", "", False


def written(node: ast.expr | None) -> str:
    "The code, with double quotes as in the source."
    if node is None:
        return ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return '"' + node.value.replace('"', '\\"') + '"'
    return re.sub(r"'([^'\"]*)'", r'"\1"', ast.unparse(node))


def annotation(node: ast.expr | None) -> str:
    "A type as it is read: names in quotes have none."
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Annotated":
        return annotation(node.slice.elts[0])
    return written(node)


def function_parts(
    node: ast.FunctionDef, said: Comments, bound: bool
) -> tuple[tuple[Parameter, ...], Parameter | None]:
    "Parameters and result; of a method without self."
    found, last = [], node.lineno
    for arg, name, default, after_star in named_parameters(node):
        end = max(part.end_lineno or 0 for part in [arg, *defaults(node, arg)])
        comment = said.of(arg.lineno, end) if arg.lineno > node.lineno else ""
        last = max(last, end)
        made = Parameter(name, annotation(arg.annotation), default, comment, after_star)
        found.append(made)
    if bound:
        found = found[1:]
    back = annotation(node.returns)
    # the line of the closing bracket
    end = node.returns.end_lineno if node.returns else last
    comment = said.of(end, end) if end > node.lineno else said.behind.get(end, "")
    if back == "None" and comment and len(found) == 1 and not found[0].comment:
        found[0] = replace(found[0], comment=comment)
    if back in ("", "None"):
        return tuple(found), None
    return tuple(found), Parameter("", back, "", comment)


def defaults(node: ast.FunctionDef, arg: ast.arg) -> list[ast.expr]:
    "The default of an argument, if it has one."
    spec = node.args
    plain = [*spec.posonlyargs, *spec.args]
    pairs = list(zip(reversed(plain), reversed(spec.defaults)))
    pairs += list(zip(spec.kwonlyargs, spec.kw_defaults))
    return [default for one, default in pairs if one is arg and default is not None]


def refusals(node: Definition) -> tuple[str, ...]:
    "What `require` asks of an argument: its name, and what is allowed."
    found, known = [], {}
    for child in sorted(ast.walk(node), key=lambda n: getattr(n, "lineno", 0)):
        if isinstance(child, ast.Assign) and isinstance(child.targets[0], ast.Name):
            known[child.targets[0].id] = child.value
        if isinstance(child, ast.Call) and ast.unparse(child.func) == "require":
            name, allowed = child.args[1], child.args[3]
            if isinstance(allowed, ast.Name):
                allowed = known.get(allowed.id, allowed)
            words = sentence(allowed)
            if isinstance(name, ast.Constant) and words:
                found.append(f"ValueError: `{name.value}` must {words}.")
    return tuple(dict.fromkeys(found))


def sentence(node: ast.expr) -> str:
    "A text, with the code of what is put into it; empty where that is long."
    if isinstance(node, ast.Constant):
        return str(node.value)
    if not isinstance(node, ast.JoinedStr):
        return ""
    pieces = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            inside = ast.unparse(part.value).replace("self.", "")
            if not re.fullmatch(r"[\w.]+", inside):
                return ""
            pieces.append(f"`{inside}`")
        else:
            pieces.append(str(part.value))
    return "".join(pieces)


# Modules


@dataclass(frozen=True)
class Module:
    "A module, read."

    name: str  # without ddpm_lit

    @property
    def path(self) -> Path:
        return PACKAGE / f"{self.name.replace('.', '/')}.py"

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text("utf-8"))

    @cached_property
    def said(self) -> Comments:
        return comments(self.path.read_text("utf-8"))

    @cached_property
    def nodes(self) -> dict[str, ast.stmt]:
        "What stands at the top, by name."
        found: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            if isinstance(node, Definition):
                found[node.name] = node
            for target in getattr(node, "targets", []):
                found[ast.unparse(target)] = node
            if isinstance(node, ast.AnnAssign):
                found[ast.unparse(node.target)] = node
        return found

    @property
    def exported(self) -> list[str]:
        "What a notebook exports without an underscore, in its order."
        return [name for name in self.nodes if name[0] != "_"]

    @property
    def promise(self) -> str:
        return ast.get_docstring(self.tree) or ""

    def entry(self, name: str) -> Entry:
        return read(self, name)

    def made(self, name: str) -> Entry:
        node = self.nodes[name]
        if isinstance(node, ast.FunctionDef):
            return self.function(node)
        if isinstance(node, ast.ClassDef):
            return self.class_(node)
        kind = "type" if is_type(name, node) else "constant"
        comment = self.said.of(node.lineno, node.lineno)
        value = written(node.value)
        return Entry(name, self.name, kind, node.lineno, doc=comment, value=value)

    def function(self, node: ast.FunctionDef, owner: str = "", how: str = "") -> Entry:
        decorators = [
            ast.unparse(one).rpartition(".")[2] for one in node.decorator_list
        ]
        how = how or next((d for d in decorators if d in PROPERTIES), "")
        bound = bool(owner) and "staticmethod" not in (how, *decorators)
        parameters, returns = function_parts(node, self.said, bound)
        parameters = tuple(told(one, parameters) for one in parameters)
        kind = "property" if how in PROPERTIES else "method" if owner else "function"
        return Entry(
            node.name,
            self.name,
            kind,
            node.lineno,
            owner,
            ast.get_docstring(node) or "",
            parameters,
            returns,
            refusals(node),
        )

    def parameters(self, name: str) -> tuple[Parameter, ...]:
        "What a function or a class takes."
        node = self.nodes[name]
        if isinstance(node, ast.FunctionDef):
            return self.function(node).parameters
        init = method(node, "__init__")
        if init:
            return self.function(init, name).parameters
        found = tuple(self.fields(node))
        return tuple(told(one, found) for one in found)

    def class_(self, node: ast.ClassDef) -> Entry:
        init = method(node, "__init__")
        docs = [ast.get_docstring(part) for part in (node, init) if part]
        check = method(node, "__post_init__")
        return Entry(
            node.name,
            self.name,
            "class",
            node.lineno,
            "",
            " ".join(filter(None, docs)),
            self.parameters(node.name),
            None,
            refusals(check) if check else (),
            shared(tuple(self.members(node))),
            tuple(ast.unparse(base) for base in node.bases),
            fields=init is None,
        )

    def base_nodes(self, node: ast.ClassDef) -> Iterator[tuple["Module", ast.ClassDef]]:
        "The classes of the package that a class is made from."
        for base in node.bases:
            name = ast.unparse(base)
            module = home().get(name)
            if module and isinstance(module.nodes[name], ast.ClassDef):
                yield module, module.nodes[name]

    def fields(self, node: ast.ClassDef) -> Iterator[Parameter]:
        "Those of a dataclass or an enumeration, with what it inherits."
        own = dict(self.own_fields(node))
        for module, base in self.base_nodes(node):
            for one in module.fields(base):
                yield own.pop(one.name, one)
        yield from own.values()

    def own_fields(self, node: ast.ClassDef) -> Iterator[tuple[str, Parameter]]:
        names = [ast.unparse(base) for base in node.bases]
        if not any("dataclass" in ast.unparse(one) for one in node.decorator_list):
            names = [
                name for name in names if name in ("IntEnum", "Enum", "NamedTuple")
            ]
            if not names:
                return
        for part in node.body:
            comment = self.said.of(part.lineno, part.end_lineno or part.lineno)
            if isinstance(part, ast.AnnAssign):
                name, kind = ast.unparse(part.target), annotation(part.annotation)
                default = field_default(part.value)
                if not kind.startswith("ClassVar") and default is not None:
                    yield name, Parameter(name, kind, default, comment)
            elif isinstance(part, ast.Assign) and "IntEnum" in names:
                name = ast.unparse(part.targets[0])
                yield name, Parameter(name, "", written(part.value), comment)

    def members(self, node: ast.ClassDef, owner: str = "") -> Iterator[Entry]:
        "Public methods and properties, with those of bases that are not public."
        owner = owner or node.name
        own = list(self.own_members(node, owner))
        yield from own
        seen = {one.name for one in own}
        for module, base in self.base_nodes(node):
            if base.name not in public().get(module.name, []):
                for one in module.members(base, owner):
                    if one.name not in seen:
                        yield one

    def own_members(self, node: ast.ClassDef, owner: str) -> Iterator[Entry]:
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                if part.name[0] != "_" or part.name == "__call__":
                    yield self.function(part, owner)
            elif isinstance(part, ast.Assign):
                yield from self.bindings(part, owner)

    def bindings(self, part: ast.Assign, owner: str) -> Iterator[Entry]:
        "Functions of the module that a class takes as methods: `draw = draw_images`."
        target, value = part.targets[0], part.value
        tuples = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        pairs = zip(target.elts, value.elts) if tuples else [(target, value)]
        for name, function in pairs:
            how = ""
            if isinstance(function, ast.Call):
                how, function = ast.unparse(function.func), function.args[0]
            source = self.nodes.get(ast.unparse(function))
            if isinstance(source, ast.FunctionDef):
                made = self.function(source, owner, how)
                own = ast.unparse(name)
                yield replace(made, name=own, function=source.name)


@cache
def read(module: Module, name: str) -> Entry:
    return module.made(name)


def method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    "The method that stands in a class under this name."
    here = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    return next((part for part in here if part.name == name), None)


def is_type(name: str, node: ast.stmt) -> bool:
    return (
        name[0].isupper() and not name.isupper() and not isinstance(node, ast.AnnAssign)
    )


def field_default(value: ast.expr | None) -> str | None:
    "The default of a field; None for a field that is not asked for."
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "field"):
        return written(value)
    given = {word.arg: word.value for word in value.keywords}
    if "init" in given and ast.unparse(given["init"]) == "False":
        return None
    if "default_factory" in given:
        return f"{ast.unparse(given['default_factory'])}()"
    return written(given.get("default"))


def told(one: Parameter, beside: tuple[Parameter, ...]) -> Parameter:
    """With the comment of the function that its own comment names ("as in time_steps"),
    or that of a parameter beside it; or what is usual for its type."""
    said = [one.comment] if one.comment else [other.comment for other in beside]
    for comment in said:
        found = re.match(r"(?:all )?(?:arguments )?as (?:in|for) `?(\w+)`?", comment)
        module = home().get(found[1]) if found else None
        for other in module.parameters(found[1]) if found and module else ():
            if other.name == one.name and other.comment:
                return replace(one, comment=other.comment)
    return replace(one, comment=one.comment or USUAL.get(one.kind, ""))


def shared(methods: tuple[Entry, ...]) -> tuple[Entry, ...]:
    "With the comment of a parameter at all methods of a class that have it."
    parts = [one for method in methods for one in method.parameters if one.comment]
    said = {(one.name, one.kind): one.comment for one in reversed(parts)}

    def full(one: Parameter) -> Parameter:
        return replace(one, comment=one.comment or said.get((one.name, one.kind), ""))

    return tuple(
        replace(method, parameters=tuple(map(full, method.parameters)))
        for method in methods
    )


@cache
def modules() -> dict[str, Module]:
    "All modules of the package that notebooks export, by name."
    files = [p for p in PACKAGE.rglob("*.py") if not p.name.startswith("_")]
    names = [".".join(p.relative_to(PACKAGE).with_suffix("").parts) for p in files]
    return {name: Module(name) for name in sorted(names) if name != "cli"}


@cache
def home() -> dict[str, Module]:
    "The module of each function and class."
    found = {}
    for module in modules().values():
        for name, node in module.nodes.items():
            if isinstance(node, Definition):
                found[name] = module
    return found


@cache
def public() -> dict[str, list[str]]:
    "The public names of each module, as the package's stub lists them."
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {node.module or "": [a.name for a in node.names] for node in imports}
