"""The package from outside: what `import ddpm_lit` needs, which names it has, and in
which direction its modules import."""

import ast
import importlib
import subprocess
import sys

import pytest
from book import PACKAGE, ROOT, modules

HEAVY = (
    "sympy nbdev fastcore execnb IPython ipykernel matplotlib sklearn scipy "
    "torchvision accelerate diffusers PIL tqdm "
    "safetensors tyro pandas hypothesis torchmetrics torch_fidelity"
).split()
CONTRACT = """
    Gaussian gaussian_kl NoiseSchedule linear_schedule scaled_linear_schedule
    cosine_schedule sigmoid_schedule zero_terminal_snr q_sample q_posterior EPS X0 V
    Denoiser Prediction Parameterization ddpm_loss vlb_terms GaussianMixtureOracle
    Step DDPM sample_steps sample DDIM ddim_encode UNet UNetConfig Trainer TrainConfig
    load_pretrained
""".split()
BLOCKED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy!r}: raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Refuse())
"""


def python(code: str, cwd=ROOT, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, **kwargs
    )


@pytest.mark.parametrize(
    "work",
    [
        "import ddpm_lit",
        """
import torch, ddpm_lit as d
schedule = d.linear_schedule(20, 1e-3, 0.3)
oracle = d.GaussianMixtureOracle(schedule, [1.], torch.zeros(1, 1, 2, 2), [1.])
denoiser = d.Denoiser(oracle, schedule, clip=(-1, 1))
x = d.sample(denoiser, torch.randn(3, 1, 2, 2), d.DDIM(steps=5))
assert x.shape == (3, 1, 2, 2) and x.abs().max() <= 1.0001
d.UNet(d.UNetConfig(8, 1, 8, (1, 2), 1, ()))(x, torch.tensor([1, 2, 3]))
""",
    ],
    ids=["import", "sample"],
)
def test_import_needs_only_torch_and_numpy(work):
    done = python(BLOCKED.format(heavy=HEAVY) + work)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("name", CONTRACT)
def test_public_name(name):
    assert hasattr(importlib.import_module("ddpm_lit"), name), (
        f"ddpm_lit.{name} is missing"
    )


def test_signatures_of_the_contract():
    import inspect

    import ddpm_lit as d

    def parameters(function):
        return list(inspect.signature(function).parameters)

    assert parameters(d.q_sample) == ["schedule", "x0", "t", "eps"]
    assert parameters(d.q_posterior) == ["schedule", "x0", "xt", "t", "s"]
    assert parameters(d.ddpm_loss)[:9] == [
        "model",
        "schedule",
        "x0",
        "t",
        "eps",
        "param",
        "y",
        "weight",
        "reduction",
    ]
    assert (
        parameters(d.sample_steps)
        == parameters(d.sample)
        == ["denoiser", "xT", "sampler", "y", "generator"]
    )
    assert (
        parameters(d.DDPM.step)[1:]
        == parameters(d.DDIM.step)[1:]
        == ["schedule", "x", "pred", "t", "s", "noise", "previous"]
    )
    assert parameters(d.DDPM)[:4] == ["steps", "variance", "spacing", "timesteps"]
    assert parameters(d.DDIM)[:4] == ["steps", "eta", "spacing", "timesteps"]
    assert d.DDPM() == d.DDPM(
        None, "posterior", "trailing", None
    ) and d.DDIM() == d.DDIM(50, 0.0, "trailing", None)
    assert [p.name for p in (d.EPS, d.X0, d.V)] == ["eps", "x0", "v"]


def test_version_is_the_one_in_settings():
    from configparser import ConfigParser

    import ddpm_lit

    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    assert ddpm_lit.__version__ == settings["DEFAULT"]["version"]


def packages_of(path) -> list[str]:
    "The package that a file lies in, and those around it."
    parts = path.relative_to(PACKAGE.parent).parent.parts
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def file_of(module: str):
    return PACKAGE / f"{module.replace('.', '/')}.py"


def imported(path) -> set[str]:
    """The modules that a file imports, anywhere in it; those of the package as
    `ddpm_lit.x`."""
    found = set()
    # the package that one, two, ... dots stand for
    dots = ["", *(p for p in packages_of(path))]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), (
                f"{path.name} imports *"
            )
            base = ".".join(filter(None, [dots[node.level], node.module]))
            found |= (
                {
                    f"ddpm_lit.{alias.name}"
                    for alias in node.names
                    if alias.name != "__version__"
                }
                if base == "ddpm_lit"
                else {base}
            )
    return found


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_earlier_ones(module):
    places = modules()
    mine = {
        name.removeprefix("ddpm_lit.")
        for name in imported(file_of(module))
        if name.startswith("ddpm_lit.")
    }
    assert mine <= set(places), (
        f"{module} imports {mine - set(places)}, which no notebook exports"
    )
    late = {name for name in mine if places[name] >= places[module]}
    assert not late, f"{module} imports {late} from the same page or a later one"
    assert module == "proof" or "proof" not in mine, (
        "no runtime module needs the proofs"
    )


@pytest.mark.parametrize("module", modules())
def test_exported_code_does_not_import_the_tools_of_the_page(module):
    roots = {name.partition(".")[0] for name in imported(file_of(module))}
    assert not roots & (
        {"fastcore", "nbdev", "IPython", "execnb", "pytest"}
        | (set() if module == "proof" else {"sympy"})
    )


def test_every_module_comes_from_a_notebook():
    files = {
        ".".join(p.relative_to(PACKAGE).with_suffix("").parts)
        for p in PACKAGE.rglob("*.py")
    }
    by_hand = {"__init__", "__main__", "_modidx", "cli", "command.__init__"}
    assert files - by_hand == set(modules())


def test_public_names_are_those_of_the_stub():
    """Each is there, under its own name, as type checkers ask for; none is the name of
    a module, which would hide it once that module is imported."""
    import ddpm_lit

    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = {a.name: node.module for node in imports for a in node.names}
    assert all(a.asname == a.name for node in imports for a in node.names)
    assert set(ddpm_lit.__all__) == set(names)
    assert all(hasattr(ddpm_lit, name) for name in names)
    assert not set(names) & {name.split(".")[0] for name in modules()}
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = ddpm_lit.nothing_such


def test_nothing_is_exported_twice():
    from collections import Counter

    names = Counter()
    for module in modules():
        tree = ast.parse(file_of(module).read_text(encoding="utf-8"))
        names.update(
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
            and not node.name.startswith("_")
        )
    assert not [name for name, n in names.items() if n > 1]
