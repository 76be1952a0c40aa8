"The wheel, installed elsewhere, works outside the repository."

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec

import pytest
from book import ROOT, modules

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which the wheel of a copy of the tracked files was installed, and
    the wheel's list of files."""
    source, wheels, target = (
        tmp_path_factory.mktemp(name) for name in ("source", "wheels", "target")
    )
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if not (ROOT / name).is_file():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    # no fetching where both are here
    offline = (
        ["--no-build-isolation"]
        if find_spec("setuptools") and find_spec("wheel")
        else []
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", *offline, "--wheel-dir", str(wheels), str(source)],
        check=True,
    )
    (wheel,) = wheels.glob("ddpm_lit-*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True
    )
    return target, zipfile.ZipFile(wheel).namelist()


def outside(target, tmp_path, code: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "PYTHONPATH": str(target)
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_what_it_needs(installed):
    _, files = installed
    homes = {f"ddpm_lit/{name.replace('.', '/')}.py" for name in modules()}
    assert homes | {
        "ddpm_lit/__init__.py",
        "ddpm_lit/__init__.pyi",
        "ddpm_lit/command/__init__.py",
        "ddpm_lit/command/page.html",
        "ddpm_lit/command/page.css",
        "ddpm_lit/py.typed",
        "ddpm_lit/figures.mplstyle",
    } <= set(files)
    weights = {
        f"ddpm_lit/weights/{p.relative_to(ROOT / 'ddpm_lit' / 'weights').as_posix()}"
        for p in (ROOT / "ddpm_lit" / "weights").rglob("*")
        if p.is_file()
    }
    assert weights <= set(files)
    assert not [name for name in files if name.startswith(("tests/", "nbs/"))] and any(
        name.endswith("LICENSE") for name in files
    )


def test_it_works_outside_the_repository(installed, tmp_path):
    target, _ = installed
    where = outside(
        target,
        tmp_path,
        """
import ddpm_lit as d, torch
print(d.__file__)
import matplotlib.pyplot as plt
plt.style.use("ddpm_lit.figures")
schedule = d.linear_schedule(20, 1e-3, 0.3)
net = d.UNet(d.UNetConfig(8, 1, 8, (1, 2), 1, ()))
denoiser = d.Denoiser(net, schedule, clip=(-1, 1))
x = d.sample(denoiser, torch.randn(2, 1, 8, 8), d.DDIM(4))
assert x.shape == (2, 1, 8, 8)
""",
    )
    assert where.startswith(str(target)), where


def test_the_command_answers(installed, tmp_path):
    target, _ = installed
    helped = outside(
        target,
        tmp_path,
        (
            "import sys; sys.argv = ['ddpm-lit', '--help']\ntry:\n    from "
            "ddpm_lit.command.main import main; main()\nexcept SystemExit as end:\n"
            "    assert not end.code, end.code\n"
        ),
    )
    assert all(word in helped for word in ("train", "resume", "sample"))


def test_the_digits_are_inside(installed, tmp_path):
    if not (ROOT / "ddpm_lit" / "weights").is_dir():
        pytest.skip("this version brings no weights")
    target, _ = installed
    outside(
        target,
        tmp_path,
        """
import ddpm_lit as d, torch
run = d.load_pretrained("digits")
xT = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
x = d.sample(run, xT, d.DDIM(10))
assert x.shape == (4, 1, 8, 8) and x.abs().max() <= 1.001
""",
    )
