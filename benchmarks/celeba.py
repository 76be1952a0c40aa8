"""CelebA at 64x64, trained and measured: `python benchmarks/celeba.py --data DIR --work
DIR`.

Stages, each of which leaves a file or a run folder in --work and is not done twice: the
script can be stopped at any time, and goes on when it is called again. `--only` names
stages to do now; what is finished goes into results/celeba.json and results/celeba/.
Only generated faces are written, never a photograph. `--train` are the flags of the
training: what they are for a GPU is the preset's, and without one a network for two CPU
cores is trained."""

import statistics
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch
from origin import ROOT
from stages import Stages, parser

from ddpm_lit import DDIM, DDPM, DPMSolver, DrawConfig, ImageData, Run, UNet
from ddpm_lit import draw_pixels, evaluate_run, features, fit_classifier
from ddpm_lit import interpolation, load_classifier, load_images, load_pretrained
from ddpm_lit import nearest_distances, save_grid, set_distances, trajectories
from ddpm_lit.classifier import accuracy, predictions, save_classifier
from ddpm_lit.generate import save_trajectories
from ddpm_lit.report import sampled, table
from ddpm_lit.runs import checkpoints, read_log
from ddpm_lit.unet import load_weights
from ddpm_lit.storage import read_tensors

TOLD = ("Smiling", "Eyeglasses", "Male")
SMALL = (
    "--channels 24 --multipliers 1 2 4 6 --conditioning scale_shift "
    "--batch-size 32 --steps 4500 --lr 1e-3 --warmup 200 --ema-decay 0.998 "
    "--checkpoint-every 500 --keep 100 --sample-every 0 --compile"
)
JUDGES = {"judge": dict(epochs=16), "first_judge": dict(epochs=8)}


class Work(Stages):
    data = "celeba"

    @property
    def flags(self) -> str:
        return f"--attributes {' '.join(TOLD)} {self.args.train}"

    @cache
    def split(self, name: str, attributes: tuple[str, ...] = TOLD) -> ImageData:
        return load_images("celeba", self.args.data, 64, 3, name, attributes=attributes)

    @cache
    def folder_of_main(self) -> Path:
        return self.trained("main", self.flags)

    @cache
    def main(self) -> Run:
        return load_pretrained(self.folder_of_main())

    @cache
    def known(self) -> tuple[str, ...]:
        "All attributes of the list."
        return tuple(
            (self.args.data / "celeba" / "list_attr_celeba.txt")
            .read_text()
            .splitlines()[1]
            .split()
        )

    @cache
    def judge(self, name: str = "judge") -> tuple:
        """A classifier of all attributes; the one called judge is it in whose features
        faces are compared."""
        folder = self.folder / name
        if not folder.is_dir():
            train, test = (self.split(part, self.known()) for part in ("train", "test"))
            judge = fit_classifier(
                train, device=self.device, shift=2, flip=True, **JUDGES[name]
            )
            common = ((test.contexts.mean(0) - 0.5).abs() + 0.5).mean().item()
            save_classifier(
                folder,
                judge,
                JUDGES[name]
                | dict(
                    data="celeba",
                    attributes=list(self.known()),
                    trained_on=len(train),
                    tested_on=len(test),
                    accuracy=round(accuracy(judge, test), 4),
                    commonest=round(common, 4),
                ),
            )
        judge, facts = load_classifier(folder)
        return judge, {"name": "attributes"} | facts

    def seen(self, pixels: torch.Tensor) -> dict[str, float]:
        "The share of faces that the classifier sees each of our attributes in."
        found = predictions(self.judge()[0], ImageData(pixels)) > 0
        return {
            name: found[:, self.known().index(name)].double().mean().item()
            for name in TOLD
        }


# %% Stages


def main_run(work: Work) -> dict:
    "How the run went."
    return work.told(
        work.folder_of_main(), f"ddpm-lit train celeba {work.flags}", work.main()
    )


def judge(work: Work, name: str = "judge") -> dict:
    """What the judge can tell: how often it is right on held-out photographs, beside
    always saying what is commoner, and in how many of those that have it an attribute
    is seen."""
    net, facts = work.judge(name)
    test = work.split("test")
    said, told = (
        predictions(net, test)[
            :, [work.known().index(attribute) for attribute in TOLD]
        ]
        > 0,
        test.contexts > 0.5,
    )
    rows = {
        attribute: dict(
            right=(said[:, i] == told[:, i]).double().mean().item(),
            share=told[:, i].double().mean().item(),
            found=said[told[:, i], i].double().mean().item(),
        )
        for i, attribute in enumerate(TOLD)
    }
    return facts | dict(rows=rows)


def first_judge(work: Work) -> dict:
    "The judge that was tried before."
    return judge(work, "first_judge")


def headline(work: Work) -> dict:
    """Samples by 50 steps of DDIM, with the attributes of training photographs, and
    what is measured of them."""
    run, train, test = work.quick(work.main()), work.split("train"), work.split("test")
    config = DrawConfig(DDIM(50), batch=work.args.batch, device=work.device)
    samples = sampled(run, train, config, work.args.n)
    found = evaluate_run(
        work.main(),
        train,
        test,
        config,
        samples=samples,
        classifier=work.judge(),
        bits=work.args.bits,
    )
    mirrored = torch.cat(
        [train.float(), train.float().flip(-1)]
    )  # the network was shown both
    near = {
        name: nearest_distances(data[:500].float(), mirrored)
        for name, data in (("", samples), ("_real", test))
    }
    top = max(d.max().item() for d in near.values())
    found["nearest"] = (
        {
            f"counts{name}": torch.histc(d, 50, 0, top).long().tolist()
            for name, d in near.items()
        }
        | {f"mean{name}": d.mean().item() for name, d in near.items()}
        | {f"smallest{name}": d.min().item() for name, d in near.items()}
        | dict(
            top=top, samples=len(near[""]), held_out=len(near["_real"]), mirrored=True
        )
    )
    return found | dict(
        seen=work.seen(samples.images),
        asked={
            name: samples.contexts[:, i].mean().item() for i, name in enumerate(TOLD)
        },
    )


def over_training(work: Work) -> dict:
    """Distance and loss at each checkpoint, with the averaged weights; half as many
    samples as elsewhere."""
    n, train, reference, rows = (
        work.args.few // 2,
        work.split("train"),
        features(work.judge()[0], work.split("test")),
        [],
    )
    log = read_log(work.folder_of_main())
    for path in checkpoints(work.folder_of_main()):
        step, net = int(path.stem), UNet(work.main().model.config).eval()
        if step == 0:
            continue
        averaged = {
            key.removeprefix("ema."): x
            for key, x in read_tensors(path)[0].items()
            if key.startswith("ema.")
        }
        load_weights(net, averaged, path)
        samples = sampled(
            work.quick(replace(work.main(), model=net)),
            train,
            DrawConfig(DPMSolver(10), batch=work.args.batch, device=work.device),
            n,
        )
        rows.append(
            dict(
                step=step,
                seconds=round(log[step - 1]["seconds"]),
                loss=round(
                    statistics.mean(
                        line["loss"] for line in log[max(0, step - 200) : step]
                    ),
                    5,
                ),
                **asdict(
                    set_distances(features(work.judge()[0], samples), reference)
                ),
            )
        )
    return dict(n=n, sampler="DPM-Solver++(2M), 10 steps", rows=rows)


def guidance(work: Work) -> dict:
    """How often the judge sees an attribute that was asked for, and what that costs in
    distance."""
    run, train, reference, found = (
        work.quick(work.main()),
        work.split("train"),
        features(work.judge()[0], work.split("test")),
        {},
    )
    for scale in (1.0, 2.0, 4.0):
        row = {}
        for i, name in enumerate(TOLD):
            for value in (0.0, 1.0):
                told = train.contexts[: work.args.few // 4].clone()
                told[:, i] = value
                how = (0, told.tolist(), scale, work.args.batch, work.device)
                pixels = draw_pixels(run, DrawConfig(DPMSolver(10), *how), len(told))
                row[f"{name}={value:g}"] = work.seen(pixels)[name]
        samples = sampled(
            run,
            train,
            DrawConfig(DPMSolver(10), 0, None, scale, work.args.batch, work.device),
            work.args.few,
        )
        found[f"{scale:g}"] = dict(
            seen=row,
            **asdict(set_distances(features(work.judge()[0], samples), reference)),
        )
    return dict(
        n=work.args.few // 4,
        of_distance=work.args.few,
        sampler="DPM-Solver++(2M), 10 steps",
        scales=found,
    )


def pictures(work: Work) -> dict:
    """Generated faces: DDIM, DDPM, how they come to be, the way from one to another,
    and attributes with guidance."""
    run, out = work.main(), ROOT / "results" / "celeba"
    out.mkdir(parents=True, exist_ok=True)
    told = work.split("train").contexts[:32].tolist()

    def how(labels: list, sampler=DDIM(50), guidance: float = 1.0) -> DrawConfig:
        return DrawConfig(sampler, 0, labels, guidance, device=work.device)

    save_grid(draw_pixels(run, how(told), 32), out / "ddim.png", columns=8)
    ddpm = how(told, DDPM(steps=250))
    save_grid(draw_pixels(run, ddpm, 32), out / "ddpm.png", columns=8)
    ways = trajectories(run, how(told[:3]), 3, frames=8)
    save_trajectories(ways, out / "trajectory.png")
    ways = [
        interpolation(run, how([plain]), a, b, 8)
        for a, b, plain in ((0, 1, (1, 0, 0)), (2, 3, (1, 0, 1)), (4, 5, (0, 0, 0)))
    ]
    save_grid(torch.cat(ways), out / "interpolation.png", columns=8)
    rows = [
        draw_pixels(run, how([told], guidance=2.0), 8)
        for told in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1))
    ]
    save_grid(torch.cat(rows), out / "attributes.png", columns=8)
    return dict(
        pictures=sorted(path.name for path in out.glob("*.png")),
        told=list(TOLD),
        guidance=2.0,
    )


STAGES = {
    "main_run": main_run,
    "first_judge": first_judge,
    "judge": judge,
    "headline": headline,
    "over_training": over_training,
    "guidance": guidance,
    "pictures": pictures,
}


def main() -> None:
    options = parser(__doc__, list(STAGES))
    options.add_argument(
        "--train",
        default="--compile" if torch.cuda.is_available() else SMALL,
        help="flags of ddpm-lit train",
    )
    options.add_argument(
        "--n",
        type=int,
        default=1000,
        help="samples that are measured: as many as there are held-out photographs",
    )
    options.add_argument(
        "--few", type=int, default=500, help="samples for a row of a table"
    )
    options.add_argument(
        "--bits",
        type=int,
        default=32,
        help="held-out photographs for bits per dimension",
    )
    work = Work(options.parse_args())
    for name in work.args.only:
        work.kept(name, lambda: STAGES[name](work))
    found = work.write(list(STAGES))
    if "headline" in found:
        print(table(found["headline"]))


if __name__ == "__main__":
    main()
