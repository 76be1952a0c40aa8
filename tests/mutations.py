"""Mistakes made on purpose, to see whether the pages and the tests notice: `python tests/mutations.py [part of a name ...]`.

Each mutation replaces one piece of an exported formula by a near miss: a sign, an index, a root, a coefficient. It is made in a
temporary copy, both in the module and in the notebook that exports it, and must be found exactly once in either. Then the page's code is
run, or a test file, whichever the mutation names as its judges. A mutation counts as caught if every judge fails, and fails for
the right reason: an assertion or a refused value, not a crash."""
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PAGE = "page"  # the judge that is the notebook itself


@dataclass(frozen=True)
class Mutation:
    "One mistake: in `module`, the text `old` becomes `new`; `judges` are PAGE or names of files in tests/. The first is the owner, whom the slow suite asks."
    name: str
    module: str
    old: str
    new: str
    judges: tuple[str, ...]


def both(test: str) -> tuple[str, ...]: return PAGE, test


MUTATIONS = [
    Mutation("KL with the means added", "gaussian", "(p.mean - q.mean) ** 2", "(p.mean + q.mean) ** 2", both("test_forward_posterior.py")),
    Mutation("a draw scaled by the variance, not its root", "gaussian", "self.var.sqrt() * noise", "self.var * noise", both("test_forward_posterior.py")),
    Mutation("log density without its half", "gaussian", "return -0.5 * ((x", "return -1.0 * ((x", both("test_forward_posterior.py")),

    Mutation("cosine without the square", "schedule", "f = angle.cos() ** 2", "f = angle.cos()", both("test_schedule.py")),
    Mutation("beta over the later alpha_bar", "schedule", "-self.alpha_bar.diff() / self.alpha_bar[:-1]", "-self.alpha_bar.diff() / self.alpha_bar[1:]", both("test_schedule.py")),
    Mutation("SNR of amplitudes", "schedule", "return self.alpha_bar / (1 - self.alpha_bar)", "return (self.alpha_bar / (1 - self.alpha_bar)).sqrt()", both("test_schedule.py")),
    Mutation("scaled linear without its roots", "schedule", "torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end)", "torch.linspace(beta_start, beta_end", ("test_schedule.py",)),
    Mutation("zero terminal SNR shifted, not stretched", "schedule", "* root[0] / (root[0] - root[-1])", "", both("test_schedule.py")),

    Mutation("noise scaled by 1 - alpha_bar, not its root", "forward", "expand((1 - abar_t).sqrt(), x0)", "expand(1 - abar_t, x0)", both("test_forward_posterior.py")),
    Mutation("stride over the wrong alpha_bar", "forward", "(abar_s - abar_t) / abar_s", "(abar_s - abar_t) / abar_t", both("test_forward_posterior.py")),

    Mutation("posterior mean with alpha_bar of t for that of s", "posterior", "c0 = abar_s.sqrt() * beta", "c0 = abar_t.sqrt() * beta", both("test_forward_posterior.py")),
    Mutation("posterior mean without a root", "posterior", "ct = alpha.sqrt()", "ct = alpha", both("test_forward_posterior.py")),
    Mutation("posterior mean with its coefficients exchanged", "posterior", "expand(c0, x0) * at_least_float32(x0) + expand(ct, xt)", "expand(ct, x0) * at_least_float32(x0) + expand(c0, xt)", both("test_forward_posterior.py")),
    Mutation("beta for the posterior variance", "posterior", "(1 - abar_s) * beta / (1 - abar_t), xt", "beta, xt", both("test_forward_posterior.py")),

    Mutation("decode with the sign of the noise flipped", "prediction", "- expand(noise / det, xt) * out", "+ expand(noise / det, xt) * out", both("test_prediction.py")),
    Mutation("v with its sign flipped", "prediction", "return -noise, signal", "return noise, -signal", both("test_prediction.py")),
    Mutation("clipping that keeps the old epsilon", "prediction", "X0.decode(schedule, pred.x0.clamp(low, high), xt, t)", "Prediction(pred.x0.clamp(low, high), pred.eps)", both("test_prediction.py")),
    Mutation("min-SNR weight of v without + 1", "prediction", "snr.clamp(max=gamma) / (snr + 1)", "snr.clamp(max=gamma) / snr", both("test_prediction.py")),
    Mutation("min-SNR clamped from the other side", "prediction", "(gamma / snr).clamp(max=1)", "(gamma / snr).clamp(min=1)", both("test_prediction.py")),

    Mutation("nats for bits", "elbo", "nats.flatten(1).mean(1) / math.log(2)", "nats.flatten(1).mean(1)", both("test_elbo_oracle.py")),
    Mutation("terms averaged, not added", "elbo", "self.prior + self.kl.sum(1)", "self.prior + self.kl.mean(1)", both("test_elbo_oracle.py")),
    Mutation("prior without the root", "elbo", "Gaussian(abar_T.sqrt() * x0, 1 - abar_T)", "Gaussian(abar_T * x0, 1 - abar_T)", both("test_elbo_oracle.py")),
    Mutation("alpha for the larger variance", "elbo", "stride(schedule, t - 1, t)[1]", "stride(schedule, t - 1, t)[0]", both("test_elbo_oracle.py")),
    Mutation("decoder with its first bin cut off", "elbo", "torch.where(x0 < -1 + half, -math.inf,", "torch.where(x0 < -2, -math.inf,", both("test_elbo_oracle.py")),

    Mutation("oracle's clean image without a root", "oracle", "abar.sqrt() * self.variances.to(abar) / var", "abar * self.variances.to(abar) / var", both("test_elbo_oracle.py")),
    Mutation("oracle's noise without a root", "oracle", "(1 - abar).sqrt() / var", "(1 - abar) / var", both("test_elbo_oracle.py")),

    Mutation("the last step adds noise", "ddpm", "if s == 0: return post.mean", "if t == 0: return post.mean", both("test_samplers.py")),
    Mutation("both variances the same", "ddpm", 'else stride(schedule, s, t)[1]', 'else post.var', both("test_samplers.py")),
    Mutation("noise scaled by the variance", "ddpm", "post.mean + var.sqrt() * noise", "post.mean + var * noise", both("test_samplers.py")),
    Mutation("trailing times shifted by one stride", "ddpm", "round(Fraction((i + 1) * T, S))", "round(Fraction(i * T + 1, S))", both("test_samplers.py")),

    Mutation("sigma for the direction", "ddim", "direction_var.sqrt() * pred.eps", "var.sqrt() * pred.eps", both("test_samplers.py")),
    Mutation("direction without its root", "ddim", "direction_var.sqrt() * pred.eps", "direction_var * pred.eps", both("test_samplers.py")),
    Mutation("sigma with the root of eta", "ddim", "var = self.eta**2 * beta", "var = self.eta * beta", both("test_samplers.py")),
    Mutation("encoding with the noise of t at s", "ddim", "(x - (1 - abar_s).sqrt() * eps)", "(x - (1 - abar_t).sqrt() * eps)", both("test_samplers.py")),

    Mutation("grey levels over their number", "data", "- (self.levels - 1)) / (self.levels - 1)", "- (self.levels - 1)) / self.levels", both("test_data.py")),
    Mutation("the time embedded without - 1", "unet", "(t - 1).float()", "t.float()", ("test_diffusers.py",)),
    Mutation("cosines before sines", "unet", "torch.cat([angles.sin(), angles.cos()], dim=1)", "torch.cat([angles.cos(), angles.sin()], dim=1)", ("test_diffusers.py",)),
    Mutation("EMA with its shares exchanged", "train", "1 - ema_decay(self.config, self.step))", "ema_decay(self.config, self.step))", both("test_train.py")),
    Mutation("EMA warm-up one step late", "train", "(1 + n) / (10 + n)", "n / (9 + n)", both("test_train.py")),
    Mutation("learning rate that starts at zero", "train", "min(1.0, (n + 1) / max", "min(1.0, n / max", ("test_train.py",)),
]
QUICK = ["stride over the wrong alpha_bar", "v with its sign flipped", "the last step adds noise"]  # judged by their test files in the quick suite


# One copy for each run

def workspace(folder: Path) -> Path:
    "What the judges need, copied."
    skip = shutil.ignore_patterns("__pycache__", "_proc", ".ipynb_checkpoints")
    for name in ("ddpm_lit", "nbs", "tests", "results"):
        if (ROOT / name).is_dir(): shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=skip)
    for name in ("pytest.ini", "settings.ini", "_quarto.yml", "README.md"): shutil.copy(ROOT / name, folder / name)
    return folder


def page_of(module: str, folder: Path = ROOT) -> Path:
    for path in sorted((folder / "nbs").glob("[0-9]*.ipynb")):
        if re.search(rf'"#\|\s*default_exp {module}(\\n)?"', path.read_text(encoding="utf-8")): return path
    raise SystemExit(f"no notebook exports {module}")


def replaced(text: str, mutation: Mutation, where: str) -> str:
    if (n := text.count(mutation.old)) != 1: raise SystemExit(f"'{mutation.name}': {mutation.old!r} occurs {n} times in {where}, not once")
    return text.replace(mutation.old, mutation.new)


def mutate(folder: Path, mutation: Mutation) -> None:
    "Make the mistake in the module and in the exported cells of its notebook."
    module = folder / "ddpm_lit" / f"{mutation.module}.py"
    module.write_text(replaced(module.read_text(encoding="utf-8"), mutation, module.name), encoding="utf-8")
    path = page_of(mutation.module, folder)
    notebook = nbformat.read(path, as_version=4)
    exported = [c for c in notebook.cells if c.cell_type == "code" and re.match(r"#\|\s*exports?\b", c.source)]
    mark = "\n# next cell\n"
    changed = replaced(mark.join(c.source for c in exported) + "\n", mutation, path.name)[:-1]
    for cell, source in zip(exported, changed.split(mark)): cell.source = source
    nbformat.write(notebook, path)


# The judges

def run_page(path: str) -> None:
    "Run the code cells of a notebook in one namespace, without a kernel. Exit code 1: an assertion or a refused value; 3: anything else."
    import matplotlib
    matplotlib.use("agg")
    from IPython.display import display
    names = {"__name__": "__main__", "display": display, "get_ipython": lambda: None}
    for i, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type != "code": continue
        try: exec(compile(cell.source, f"cell {i}", "exec"), names)
        except (AssertionError, ValueError) as caught:
            print(f"cell {i}: {type(caught).__name__}: {str(caught)[:200]}")
            sys.exit(1)
        except Exception as crash:
            print(f"cell {i}: {type(crash).__name__}: {crash}")
            sys.exit(3)


def verdict(folder: Path, judge: str, module: str) -> tuple[int, str]:
    "0: all is well; 1: the judge found a mistake; anything else: it could not judge."
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "NO_SHRINK": "1", "OMP_NUM_THREADS": "1"}
    if judge == PAGE:
        command = [sys.executable, "-c", f"import sys; sys.path.append({str(folder / 'tests')!r}); from mutations import run_page; run_page({str(page_of(module, folder))!r})"]
        done = subprocess.run(command, cwd=folder / "nbs", env=env, capture_output=True, text=True)
    else:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider", f"tests/{judge}"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr)[-1500:]


@functools.cache
def innocent(judge: str, module: str) -> None:
    "A judge who condemns the unchanged package is no judge."
    with tempfile.TemporaryDirectory() as folder:
        code, text = verdict(workspace(Path(folder)), judge, module)
        if code: raise SystemExit(f"{judge} of {module} fails without any mutation:\n{text}")


def caught(mutation: Mutation, judges: tuple[str, ...] | None = None, check_judges: bool = True) -> bool:
    "Whether every judge notices the mistake."
    for judge in judges or mutation.judges:
        if check_judges: innocent(judge, mutation.module if judge == PAGE else "")
        with tempfile.TemporaryDirectory() as folder:
            mutate(workspace(Path(folder)), mutation)
            code, text = verdict(Path(folder), judge, mutation.module)
        if code not in (0, 1): raise SystemExit(f"'{mutation.name}' made {judge} crash instead of fail:\n{text}")
        if code == 0: return False
    return True


def total() -> str: return f"{len(MUTATIONS)} of {len(MUTATIONS)} mutations caught"


if __name__ == "__main__":
    chosen = [m for m in MUTATIONS if not sys.argv[1:] or any(part in m.name or part == m.module for part in sys.argv[1:])]
    found = 0
    for m in chosen:
        start, ok = time.monotonic(), caught(m)
        found += ok
        print(f"{'caught ' if ok else 'MISSED '} {m.module:10} {m.name} ({' and '.join(m.judges)}, {time.monotonic() - start:.0f} s)", flush=True)
    print(f"{found} of {len(chosen)} mutations caught")
    sys.exit(found != len(chosen))
