"""MNIST, trained and measured: `python benchmarks/mnist.py --data DIR --work DIR`.

Stages, each of which leaves a file or a run folder in --work and is not done twice: the
script can be stopped at any time, and goes on when it is called again. `--only` names
stages to do now; what is finished goes into results/mnist.json and results/mnist/. The
main run is class-conditional, and was trained on when it had ended; another one of the
same size is not told classes. The small ones are not told classes either, have half of
the channels and one budget, and differ in one thing each."""

import shutil
import statistics
import time
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch
from origin import ROOT
from stages import Stages, parser

from ddpm_lit import DDIM, DDPM, DPMSolver, ImageData, Run, UNet, classifier_accuracy
from ddpm_lit import DrawConfig, draw_pixels, encode_decode, evaluate_run, features
from ddpm_lit import fit_classifier, interpolation, keyed_generator, load_classifier
from ddpm_lit import load_images, load_pretrained, nearest_distances, save_grid
from ddpm_lit import Stream, set_distances, trajectories
from ddpm_lit.classifier import accuracy, save_classifier
from ddpm_lit.generate import save_trajectories
from ddpm_lit.images import to_float
from ddpm_lit.report import sampled, table
from ddpm_lit.runs import read_checkpoint, read_log
from ddpm_lit.unet import load_weights
from ddpm_lit.storage import read_tensors
from ddpm_lit.storage import write_tensors

MAIN, LONGER = "--num-classes 10 --compile", 24_000
# What was tried before.
FIRST = "--num-classes 10 --conditioning add --lr 1e-3 --steps 7000 --compile"
TRIAL = "--num-classes 10 --steps 500 --warmup 100 --ema-decay 0.998 --compile"
SMALL = "--channels 16 --steps 1500 --compile"
VARIANTS = {
    "eps, linear": "--param eps --schedule linear --weighting simple",
    "eps, cosine": "--param eps --schedule cosine --weighting simple",
    "x0, cosine": "--param x0 --schedule cosine --weighting simple",
    "v, cosine": "--param v --schedule cosine --weighting simple",
    "v, linear": "--param v --schedule linear --weighting simple",
    "eps, linear, weights of the bound": (
        "--param eps --schedule linear --weighting vlb"
    ),
    "v, cosine, min-SNR": "--param v --schedule cosine --weighting min-snr",
}
ETAS, STEPS = (0.0, 0.2, 0.5, 1.0, "beta"), (10, 20, 50, 100, 1000)
JUDGE_EPOCHS = 5


class Work(Stages):
    data = "mnist"
    pictures = ROOT / "results" / "mnist"  # the folder for them

    @cache
    def split(self, name: str) -> ImageData:
        return load_images("mnist", self.args.data, split=name)

    @cache
    def half(self) -> Run:
        return load_pretrained(self.trained("main", MAIN))

    @cache
    def main(self) -> Run:
        "The same, trained on for as many steps again."
        if not (self.folder / "longer").exists():
            shutil.copytree(
                self.trained("main", MAIN), self.folder / "copy", dirs_exist_ok=True
            )
            (self.folder / "copy").rename(self.folder / "longer")
        return load_pretrained(self.trained("longer", steps=LONGER))

    @cache
    def small(self, variant: str) -> Run:
        return load_pretrained(
            self.trained(
                "small/" + variant.replace(", ", "-").replace(" ", "-"),
                f"{SMALL} {VARIANTS[variant]}",
            )
        )

    @cache
    def judge(self) -> tuple:
        """The classifier in whose features all is compared: trained once, and then a
        part of the package."""
        shipped = ROOT / "ddpm_lit" / "judges" / "mnist"
        if not shipped.is_dir():
            started, train, test = (
                time.perf_counter(),
                self.split("train"),
                self.split("test"),
            )
            judge = fit_classifier(train, JUDGE_EPOCHS, device=self.device)
            facts = dict(
                data="mnist",
                epochs=JUDGE_EPOCHS,
                trained_on=len(train),
                tested_on=len(test),
                accuracy=round(accuracy(judge, test), 4),
                seconds=round(time.perf_counter() - started),
            )
            save_classifier(shipped, judge, facts)
        return load_classifier("mnist")

    def samples(
        self, name: str, run: Run, sampler, n: int, part: int = 2000
    ) -> ImageData:
        "Samples, labelled if the run knows labels, drawn in parts that are kept."
        parts = []
        for first in range(0, n, part):
            path = self.folder / f"{name}-{first:06d}.safetensors"
            if not path.is_file():
                some = sampled_part(
                    run,
                    self.split("train"),
                    sampler,
                    first,
                    min(part, n - first),
                    self.args.batch,
                    self.device,
                )
                write_tensors(
                    path,
                    {"pixels": some.images}
                    | ({} if some.labels is None else {"labels": some.labels}),
                )
                print(f"{name}: {first + len(some)} of {n}", flush=True)
            parts.append(read_tensors(path)[0])
        return ImageData(
            torch.cat([p["pixels"] for p in parts]),
            torch.cat([p["labels"] for p in parts]) if "labels" in parts[0] else None,
            name="samples",
        )


def sampled_part(
    run: Run, train: ImageData, sampler, first: int, n: int, batch: int, device: str
) -> ImageData:
    """Samples number `first` and on, each with the label of a training digit chosen at
    random if the run knows labels."""
    labels = (
        train.labels[
            torch.randint(
                len(train), (n,), generator=keyed_generator(0, Stream.LABELS, first)
            )
        ]
        if run.model.config.num_classes
        else None
    )
    config = DrawConfig(sampler, 0, labels, batch=batch, device=device)
    return ImageData(draw_pixels(run, config, n, first), labels)


# %% Stages


def main_run(work: Work) -> dict:
    "How the main run went."
    run = work.main()
    return work.told(
        work.folder / "longer",
        f"ddpm-lit train mnist {MAIN} --out RUN; ddpm-lit resume RUN --steps {LONGER}",
        run,
    )


def headline(work: Work) -> dict:
    "10,000 samples by 50 steps of DDIM, and everything that is measured of them."
    samples = work.samples("ddim50", work.quick(work.main()), DDIM(50), work.args.n)
    return evaluate_run(
        work.main(),
        work.split("train"),
        work.split("test"),
        DrawConfig(DDIM(50), batch=256, device=work.device),
        samples=samples,
        classifier=work.judge(),
        bits=work.args.bits,
    )


def fewer(work: Work) -> dict:
    """The distance of the first 2,000 of these samples: with fewer, the ratio to the
    floor looks better."""
    samples = work.samples("ddim50", work.quick(work.main()), DDIM(50), 2000)
    return dict(
        n=len(samples),
        distance=asdict(
            set_distances(features(work.judge()[0], samples), _reference(work))
        ),
        floor=floor(work, len(samples)),
    )


def half(work: Work) -> dict:
    "The same 10,000 samples of the main run before it was trained on."
    samples = work.samples(
        "half-ddim50", work.quick(work.half()), DDIM(50), work.args.n
    )
    return _brief(
        evaluate_run(
            work.half(),
            work.split("train"),
            work.split("test"),
            DrawConfig(DDIM(50), device=work.device),
            samples=samples,
            classifier=work.judge(),
        )
    )


def unconditional(work: Work) -> dict:
    """A network of the same size that is not told classes: 10,000 samples by 50 steps
    of DDIM."""
    run = load_pretrained(work.trained("unconditional", "--compile"))
    samples = work.samples(
        "unconditional-ddim50", work.quick(run), DDIM(50), work.args.n
    )
    found = evaluate_run(
        run,
        work.split("train"),
        work.split("test"),
        DrawConfig(DDIM(50), device=work.device),
        samples=samples,
        classifier=work.judge(),
    )
    save_grid(
        samples[:40].float(),
        work.pictures / "unconditional.png",
        columns=10,
    )
    return found | {
        "told": work.told(
            work.folder / "unconditional", "ddpm-lit train mnist --compile", run
        )
    }


def _brief(found: dict) -> dict:
    return {
        name: found[name]
        for name in ("n", "distance", "floor", "agreement", "agreement_real")
    }


def first_run(work: Work) -> dict:
    """The network that was trained before the main run, and was not good enough: 2,000
    samples by 50 steps of DDIM."""
    run = load_pretrained(work.trained("first", FIRST))
    samples = work.samples("first-ddim50", work.quick(run), DDIM(50), 2000)
    found = evaluate_run(
        run,
        work.split("train"),
        work.split("test"),
        DrawConfig(DDIM(50), device=work.device),
        samples=samples,
        classifier=work.judge(),
    )
    return _brief(found) | {
        "told": work.told(work.folder / "first", f"ddpm-lit train mnist {FIRST}", run)
    }


def score(work: Work) -> dict:
    """60,000 samples by ten steps of the solver; what a classifier learns from them,
    and what the same one learns from the training set."""
    test = work.split("test")
    samples = work.samples(
        "dpm10", work.quick(work.main()), DPMSolver(10), work.args.many
    )
    reference, found = features(work.judge()[0], test), {}
    found |= dict(
        n=len(samples),
        sampler="DPM-Solver++(2M), 10 steps",
        epochs=JUDGE_EPOCHS,
        real=accuracy(work.judge()[0], test),
        agreement=accuracy(work.judge()[0], samples),
    )
    found |= dict(
        samples=classifier_accuracy(
            samples, test, epochs=JUDGE_EPOCHS, device=work.device
        ),
        distance=asdict(
            set_distances(features(work.judge()[0], samples[:10_000]), reference)
        ),
    )
    return found


def _distance(work: Work, run: Run, sampler, n: int, seed: int = 0) -> dict:
    samples = sampled(
        run,
        work.split("train"),
        DrawConfig(sampler, seed, batch=work.args.batch, device=work.device),
        n,
    )
    return asdict(
        set_distances(features(work.judge()[0], samples), _reference(work))
    )


@cache
def _reference(work: Work) -> torch.Tensor:
    return features(work.judge()[0], work.split("test"))


def floor(work: Work, n: int = 0) -> dict:
    "As many real digits as there are samples in the tables, five times."
    n, train = n or work.args.few, work.split("train")
    real = [
        train[torch.randperm(len(train), generator=key)[:n]]
        for key in (keyed_generator(0, Stream.BASELINE, i) for i in range(5))
    ]
    found = [
        asdict(set_distances(features(work.judge()[0], some), _reference(work)))
        for some in real
    ]
    return dict(
        n=n,
        frechet=statistics.mean(f["frechet"] for f in found),
        frechet_spread=statistics.stdev(f["frechet"] for f in found),
        kernel=statistics.mean(f["kernel"] for f in found),
        kernel_spread=statistics.stdev(f["kernel"] for f in found),
    )


def walks(work: Work) -> dict:
    """Steps against eta, for the small run with the paper's settings; DPM-Solver++
    as another row. Half as many samples as elsewhere: the long walks are most of the
    work."""
    run, n, found = work.quick(work.small("eps, linear")), work.args.few // 2, {}
    rows = [
        (f"DDIM, η = {eta:g}" if eta != "beta" else "DDPM, σ² = β", eta) for eta in ETAS
    ] + [("DPM-Solver++(2M)", "dpm")]
    for name, eta in rows:
        for S in STEPS:
            if eta == "dpm" and S == 1000:
                continue
            sampler = (
                DPMSolver(S)
                if eta == "dpm"
                else DDPM(S, "beta")
                if eta == "beta"
                else DDIM(S, eta)
            )
            found[f"{name} | {S}"] = work.kept(
                f"walk-{eta}-{S}", lambda: _distance(work, run, sampler, n)
            )
    return dict(
        n=n,
        floor=floor(work, n),
        rows=[name for name, _ in rows],
        steps=list(STEPS),
        frechet={key: value["frechet"] for key, value in found.items()},
        kernel={key: value["kernel"] for key, value in found.items()},
    )


def reconstruction(work: Work) -> dict:
    "Encode and decode held-out digits: the DDIM paper's table 2."
    run, x0 = work.small("eps, linear"), work.split("test")[:64].float()
    steps = (10, 20, 50, 100, 200, 500, 1000)
    return dict(
        n=len(x0),
        steps=list(steps),
        error=[
            encode_decode(
                replace(run, clip=None), DrawConfig(DDIM(S), device=work.device), x0
            )
            .error.mean()
            .item()
            for S in steps
        ],
    )


def variants(work: Work) -> dict:
    """Small runs of one budget, which differ in one thing; each average beside its raw
    weights."""
    return {
        name: work.kept(f"variant-{i}", lambda: _variant(work, name))
        for i, name in enumerate(VARIANTS)
    }


def _variant(work: Work, name: str) -> dict:
    run, folder = (
        work.small(name),
        work.folder / "small" / name.replace(", ", "-").replace(" ", "-"),
    )
    tensors = read_checkpoint(folder).tensors
    raw = UNet(run.model.config).eval()
    load_weights(
        raw,
        {
            key.removeprefix("model."): x
            for key, x in tensors.items()
            if key.startswith("model.")
        },
        folder,
    )
    log = read_log(folder)
    return dict(
        flags=VARIANTS[name],
        ema=_distance(work, work.quick(run), DDIM(50), work.args.few),
        raw=_distance(
            work, work.quick(replace(run, model=raw)), DDIM(50), work.args.few
        ),
        training_seconds=round(log[-1]["seconds"]),
        loss=round(statistics.mean(line["loss"] for line in log[-100:]), 5),
    )


def trials(work: Work) -> dict:
    """What the first minutes of the main run give, told time and class by scale and
    shift of the features, or by addition."""
    found = {}
    for name in ("scale_shift", "add"):
        folder = work.trained(f"trial-{name}", f"{TRIAL} --conditioning {name}")
        samples = sampled(
            work.quick(load_pretrained(folder)),
            work.split("train"),
            DrawConfig(DPMSolver(10), batch=work.args.batch, device=work.device),
            work.args.few,
        )
        found[name] = asdict(
            set_distances(features(work.judge()[0], samples), _reference(work))
        ) | dict(
            agreement=accuracy(work.judge()[0], samples),
            training_seconds=round(read_log(folder)[-1]["seconds"]),
        )
    return dict(
        command=f"ddpm-lit train mnist {TRIAL} --conditioning ...",
        n=work.args.few,
        sampler="DPM-Solver++(2M), 10 steps",
        ways=found,
    )


def guidance(work: Work) -> dict:
    "What exaggerating the class does to agreement and distance."
    run, train, n, found = (
        work.quick(work.main()),
        work.split("train"),
        2 * work.args.few,
        {},
    )
    for scale in (0.0, 1.0, 1.5, 2.0, 4.0):
        samples = sampled(
            run,
            train,
            DrawConfig(
                DPMSolver(10),
                guidance=scale,
                batch=work.args.batch,
                device=work.device,
            ),
            n,
        )
        found[f"{scale:g}"] = asdict(
            set_distances(features(work.judge()[0], samples), _reference(work))
        ) | dict(agreement=accuracy(work.judge()[0], samples))
    return dict(n=n, sampler="DPM-Solver++(2M), 10 steps", scales=found)


def _drawn(work: Work, n: int, guidance: float = 1.0) -> torch.Tensor:
    "Floats: digits by 50 steps of DDIM, the classes in turn."
    options = dict(labels=range(10), guidance=guidance, device=work.device)
    return to_float(draw_pixels(work.main(), DrawConfig(DDIM(50), **options), n))


def _classes(work: Work, path: Path) -> None:
    save_grid(_drawn(work, 100), path, columns=10)


def _trajectory(work: Work, path: Path) -> None:
    config = DrawConfig(DDIM(50), labels=(3, 5, 8, 0), device=work.device)
    save_trajectories(trajectories(work.main(), config, 4, frames=10), path)


def _guidance(work: Work, path: Path) -> None:
    save_grid(torch.cat([_drawn(work, 10, g) for g in (0, 1, 2, 4)]), path, columns=10)


def _nearest(work: Work, path: Path) -> float:
    "Ten digits over the training digits nearest to them; their mean distance."
    known, some = work.split("train").float(), _drawn(work, 100)[:10]
    apart = [(known - x).flatten(1).norm(dim=1) for x in some]
    nearest = torch.stack([known[distance.argmin()] for distance in apart])
    save_grid(torch.cat([some, nearest]), path, columns=10)
    return nearest_distances(some, known).mean().item()


def _interpolation(work: Work, path: Path) -> None:
    config = DrawConfig(DDIM(50), labels=4, device=work.device)
    save_grid(interpolation(work.main(), config, 0, 1, 10), path, columns=10)


PICTURES = {
    "classes": _classes,
    "trajectory": _trajectory,
    "guidance": _guidance,
    "nearest": _nearest,
    "interpolation": _interpolation,
}


def pictures(work: Work) -> dict:
    """Samples by class, how they come to be, guidance, the training digits nearest to
    some, and the way from one to another."""
    out = work.pictures
    out.mkdir(parents=True, exist_ok=True)
    found = {name: make(work, out / f"{name}.png") for name, make in PICTURES.items()}
    return dict(
        pictures=sorted(path.name for path in out.glob("*.png")),
        nearest_distance=found["nearest"],
    )


STAGES = {
    "first_run": first_run,
    "main_run": main_run,
    "half": half,
    "headline": headline,
    "unconditional": unconditional,
    "fewer": fewer,
    "score": score,
    "guidance": guidance,
    "floor": floor,
    "trials": trials,
    "walks": walks,
    "reconstruction": reconstruction,
    "variants": variants,
    "pictures": pictures,
}


def main() -> None:
    options = parser(__doc__, list(STAGES))
    options.add_argument(
        "--n",
        type=int,
        default=10_000,
        help="samples of the main run that are measured",
    )
    options.add_argument(
        "--many",
        type=int,
        default=60_000,
        help="samples of the main run that a classifier learns from",
    )
    options.add_argument(
        "--few", type=int, default=1000, help="samples for an entry of a table"
    )
    options.add_argument(
        "--bits", type=int, default=256, help="held-out digits for bits per dimension"
    )
    work = Work(options.parse_args())
    for name in work.args.only:
        work.kept(name, lambda: STAGES[name](work))
    found = work.write(list(STAGES), judge=work.judge()[1])
    if "headline" in found:
        print(table(found["headline"]))


if __name__ == "__main__":
    main()
