"""The command: round trips, seeds, and one sentence with the right exit status for
every mistake."""

import ast
import fcntl
import html
import json
import os
import pty
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_lit import train
from ddpm_lit.command import commands
from ddpm_lit.command.flags import Evaluate, Resume, Sample, draft, flag_names, parse
from ddpm_lit.command.main import COMMANDS, main, read_words
from ddpm_lit.command.recipes import FITTING, PRESETS, ScheduleConfig, Train
from ddpm_lit.command.recipes import read_train
from ddpm_lit.command.terminal import explain
from ddpm_lit.datasets import NAMED_DATA
from ddpm_lit.runs import read_log
from ddpm_lit.storage import read_tensors
from ddpm_lit.configs import PRESETS as NETWORKS

TINY = (
    "--T 20 --channels 8 --multipliers 1 --attention --blocks 1 --steps 6 --batch-size "
    "8 --warmup 2 --checkpoint-every 4 --sample-every 0 --device cpu --final full"
).split()
COMMAND = [sys.executable, "-m", "ddpm_lit"]
ENV = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Every test in a folder of its own, on one thread: the fastest for networks this
    small."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    "A run on digits, judged and all."
    run = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "digits", "--out", str(run), *TINY]) == 0
    return run


@pytest.fixture
def run(trained, tmp_path):
    "A copy of that run, to spoil."
    return Path(shutil.copytree(trained, tmp_path / "run"))


def drawings(folder, n=8, size=12):
    "A folder of small random colour pictures."
    Path(folder).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(Path(folder, f"{i}.png"))
    return str(folder)


def pictures():
    """A picture as the run draws it, one that is too wide, masks, and a file that is
    none."""
    gradient = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    for name, pixels in {
        "whole": gradient,
        "wide": np.zeros((8, 10), np.uint8),
        "mask": (gradient >= 128) * np.uint8(255),
        "black": 0 * gradient,
    }.items():
        Image.fromarray(pixels).save(f"{name}.png")
    Path("letter.txt").write_text("not a picture")


def pixels_of(path):
    return np.asarray(Image.open(path), int)


def tiles(path, columns, rows=1, side=64):
    """The pictures of a grid of grey 8x8 images, each 8 times enlarged: (rows, columns,
    8, 8)."""
    picture = pixels_of(path)
    assert picture.shape == (rows * (side + 2) - 2, columns * (side + 2) - 2), (
        picture.shape
    )
    return np.stack(
        [
            [
                picture[r * (side + 2) :][4:side:8, c * (side + 2) :][:, 4:side:8]
                for c in range(columns)
            ]
            for r in range(rows)
        ]
    )


def files(folder="."):
    return sorted(str(p) for p in Path(folder).rglob("*"))


FLAG = r"(?<!var\()(?<![\w-])--[A-Za-z][\w-]*"
KINDS = dict(zip(COMMANDS, (Train, Resume, Sample, Evaluate)))
FLAGS = {name: {"--help", *flag_names(draft(kind))} for name, kind in KINDS.items()}


def refused(capsys, argv, status, *words):
    """The command answers `argv` with `status` and one line on stderr that holds all
    `words` and no flag that it does not have, and writes nothing."""
    before = files()
    capsys.readouterr()
    assert main([str(word) for word in argv]) == status
    out, err = capsys.readouterr()
    assert (
        out == ""
        and err.startswith("ddpm-lit: ")
        and err.count("\n") == 1
        and "Traceback" not in err
    ), (out, err)
    for word in words:
        assert str(word) in err, err
    known = FLAGS.get(str(argv[0]), {"--completion", "--help"})
    assert set(re.findall(FLAG, err)) <= known | set(map(str, argv)), err
    assert files() == before


# Round trips


def test_a_run_folder_holds_what_the_help_promises(trained):
    assert {p.name for p in trained.iterdir()} == {
        "config.json",
        "schedule.json",
        "weights.safetensors",
        "checkpoints",
        "log.jsonl",
        "loss.png",
        "samples_ddpm.png",
        "samples_ddim.png",
        "samples.gif",
        "report.json",
        "summary.html",
    }
    assert [p.stem for p in sorted((trained / "checkpoints").iterdir())] == [
        "00000004",
        "00000006",
    ]
    wide, high = Image.open(trained / "samples_ddim.png").size
    # eight rows of eight, below a row of real images and a line
    assert (wide, high) == (8 * 66 - 2, (8 * 66 - 2) + 64 + 16)
    # noise, and all 20 steps
    with Image.open(trained / "samples.gif") as film:
        assert film.n_frames == 21
    assert not [p for p in trained.rglob("*") if p.name.startswith(".")]


def test_training_on_digits_prints_the_report(capsys):
    assert main(["train", "digits", "--num-classes", "10", *TINY]) == 0
    out = capsys.readouterr().out
    report = json.loads(Path("runs/digits/report.json").read_text())
    assert (
        report["samples"] == 1000
        and report["held_out"] == 450
        and report["sure_real"] > 0.8
    )
    for words in (
        "1000 samples",
        "more than 0.8 sure",
        "share of the rarest class",
        "distance to the nearest training digit",
    ):
        assert words in out
    for label in "37":
        assert (
            main(
                [
                    "sample",
                    "runs/digits",
                    "--n",
                    "3",
                    "--class",
                    label,
                    "--steps",
                    "5",
                    "--out",
                    f"{label}.png",
                ]
            )
            == 0
        )
    assert Path("3.png").read_bytes() != Path("7.png").read_bytes()  # it has classes
    refused(
        capsys, ["sample", "runs/digits", "--class", "10"], 2, "--class", "0..9", "10"
    )


def test_same_seed_same_bytes_and_no_batch_matters(run, capsys):
    common = ["sample", str(run), "--sampler", "ddpm", "--out"]
    for name, flags in {"a": "", "b": "", "c": "--batch 5", "d": "--seed 1"}.items():
        assert main([*common, f"{name}.png", "--n", "12", *flags.split()]) == 0
        assert main([*common, name, "--separate", "--n", "12", *flags.split()]) == 0
    assert main([*common, "e", "--separate", "--n", "20", "--batch", "7"]) == 0
    assert capsys.readouterr().out.split() == [
        "a.png",
        "a",
        "b.png",
        "b",
        "c.png",
        "c",
        "d.png",
        "d",
        "e",
    ]
    assert (
        Path("a.png").read_bytes()
        == Path("b.png").read_bytes()
        != Path("d.png").read_bytes()
    )
    pixels = {
        name: np.stack(
            [np.asarray(Image.open(p), int) for p in sorted(Path(name).glob("*.png"))]
        )
        for name in "abcde"
    }
    assert sorted(p.name for p in Path("a").iterdir()) == [
        *(f"{i:05d}.png" for i in range(12)),
        "sampling.json",
    ]
    assert (pixels["a"] == pixels["b"]).all()
    # a batch may round otherwise
    assert (
        abs(pixels["a"] - pixels["c"]).max() <= 1
        and abs(pixels["a"] - pixels["e"][:12]).max() <= 1
    )
    assert abs(pixels["a"] - pixels["d"]).max() > 50
    # no two images from one generator
    assert len({image.tobytes() for image in pixels["a"]}) == 12


def test_the_default_name_is_new_each_time(run, capsys):
    for name in ("ddim-5-seed0.png", "ddim-5-seed0-2.png"):
        assert main(["sample", str(run), "--n", "2", "--steps", "5"]) == 0
        assert (
            capsys.readouterr().out == f"{run / 'samples' / name}\n"
            and (run / "samples" / name).is_file()
        )


@pytest.mark.parametrize(
    "flags",
    [
        "--sampler ddim --eta 1",
        "--sampler ddim --spacing quadratic --steps 7",
        "--sampler ddpm --variance beta --steps 3",
        "--columns 3 --steps 1",
    ],
)
def test_the_samplers(run, flags):
    assert (
        main(
            [
                "sample",
                str(run),
                "--n",
                "3",
                "--steps",
                "5",
                *flags.split(),
                "--out",
                "x.png",
            ]
        )
        == 0
    )
    assert Image.open("x.png").size == (3 * 66 - 2, 64)


def test_a_flag_of_the_sampler_arrives(run):
    for name, flags in {
        "plain": "",
        "half": "--eta 0.5",
        "one": "--eta 1",
        "spacing": "--spacing quadratic",
        "steps": "--steps 6",
        "ddpm": "--sampler ddpm",
        "beta": "--sampler ddpm --variance beta",
    }.items():
        assert (
            main(
                [
                    "sample",
                    str(run),
                    "--n",
                    "3",
                    "--steps",
                    "5",
                    *flags.split(),
                    "--out",
                    f"{name}.png",
                ]
            )
            == 0
        )
    pixels = {p.stem: np.asarray(Image.open(p), int) for p in Path(".").glob("*.png")}
    assert abs(pixels["one"] - pixels["ddpm"]).max() <= 1  # DDIM with eta = 1 is DDPM
    assert (
        len({image.tobytes() for name, image in pixels.items() if name != "one"}) == 6
    )


def test_the_sampler_of_second_order(run):
    for name, flags in {
        "dpm": "",
        "trailing": "--spacing trailing",
        "all": "--steps 20",
    }.items():
        assert (
            main(f"sample {run} --n 2 --sampler dpm --out {name}.png {flags}".split())
            == 0
        )
    # min(20, T) steps
    assert Path("dpm.png").read_bytes() == Path("all.png").read_bytes()
    assert main(f"sample {run} --n 2 --sampler dpm --steps 5".split()) == 0
    assert (run / "samples" / "dpm-5-seed0.png").is_file()
    for spacing in ("trailing", "logsnr"):
        assert (
            main(
                (
                    f"sample {run} --n 2 --sampler dpm --steps 5 --spacing {spacing} "
                    f"--out {spacing}5.png"
                ).split()
            )
            == 0
        )
    assert (
        Path("logsnr5.png").read_bytes()
        == (run / "samples" / "dpm-5-seed0.png").read_bytes()
        != Path("trailing5.png").read_bytes()
    )


def test_trajectories_as_strips_and_as_a_film(run, capsys):
    sample = f"sample {run} --n 3 --steps 7 --columns 4"
    assert (
        main(f"{sample} --trajectory".split())
        == main(f"{sample} --out plain.png".split())
        == 0
    )
    path = capsys.readouterr().out.split()[0]
    assert path == str(run / "samples" / "ddim-7-seed0-trajectory.png")
    # 3 images, x_t above and x̂_0 below; steps 2, 4, 6 and 7
    strips = tiles(path, columns=4, rows=6)
    # they end in the images
    assert (strips[0::2, -1] == tiles("plain.png", 3)[0]).all()
    assert (strips[0::2, -1] == strips[1::2, -1]).all() and (
        strips[0::2, 0] != strips[1::2, 0]
    ).any()
    assert main(f"{sample} --trajectory --out x.gif".split()) == 0
    # two images and their x̂_0 in a row
    with Image.open("x.gif") as gif:
        assert (gif.n_frames, gif.size) == (7, (4 * 34 - 2, 2 * 34 - 2))


def test_interpolation_ends_at_the_images(run):
    for sampler in ("ddim", "dpm"):
        line = f"sample {run} --steps 6 --seed 3 --sampler {sampler} --out"
        assert (
            main(f"{line} way-{sampler}.png --interpolate 1 4 --n 5".split())
            == main(f"{line} plain-{sampler}.png --n 5".split())
            == 0
        )
        way, plain = (
            tiles(f"way-{sampler}.png", 5)[0],
            tiles(f"plain-{sampler}.png", 5)[0],
        )
        assert (
            abs(way[[0, -1]] - plain[[1, 4]]).max()
            <= 1
            < abs(way[2] - plain).max(axis=(1, 2)).min()
        )
    pictures()
    assert (
        main(f"sample {run} --interpolate whole.png 2 --out file.png --batch 3".split())
        == 0
    )
    assert tiles("file.png", 8).shape == (1, 8, 8, 8)


def test_encoding_comes_back_the_better_the_more_steps(run, capsys):
    pictures()
    errors = []
    for steps in (2, 5, 20):
        line = f"sample {run} --encode whole.png --steps {steps} --out {steps}.png"
        assert main(line.split()) == 0
        path, said = capsys.readouterr().out.splitlines()
        errors.append(
            float(
                re.fullmatch(
                    (
                        r"mean squared error (\S+), on a scale from 0 for black to 1 "
                        r"for white"
                    ),
                    said,
                )[1]
            )
        )
        image, _, decoded = tiles(path, 3)[0]
        assert (image == pixels_of("whole.png")).all()
        # that picture is in whole levels
        assert np.mean(((decoded - image) / 255) ** 2) == pytest.approx(
            errors[-1], rel=0.1, abs=1e-5
        )
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize(
    "flags", ["", "--sampler ddpm --steps 5", "--sampler dpm --steps 5", "--batch 2"]
)
def test_inpainting_fills_what_is_white_and_keeps_what_is_black(run, flags):
    pictures()
    assert (
        main(
            (
                f"sample {run} --inpaint whole.png mask.png --n 3 --steps 10 --out "
                f"x.png {flags}"
            ).split()
        )
        == 0
    )
    fillings, image, keep = (
        tiles("x.png", 3)[0],
        pixels_of("whole.png"),
        pixels_of("mask.png") == 0,
    )
    assert 0 < keep.sum() < 64 and abs(fillings[:, keep] - image[keep]).max() <= 1
    assert (
        abs(fillings[:, ~keep] - image[~keep]).max() > 20
        and (fillings[0] != fillings[1]).any()
    )


@pytest.fixture(scope="session")
def classy(tmp_path_factory):
    """A run that knows ten classes, and has seen none in half of the cases. Too few
    steps to tell a class by eye."""
    run = tmp_path_factory.mktemp("classy") / "run"
    assert (
        main(
            [
                "train",
                "digits",
                "--out",
                str(run),
                "--num-classes",
                "10",
                "--label-drop",
                "0.5",
                "--image-size",
                "6",
                *TINY,
                "--lr",
                "0.05",
                "--steps",
                "30",
            ]
        )
        == 0
    )
    return run


def test_classes_are_cycled_and_guidance_arrives(classy, capsys):
    flags = {
        "all": "",
        "named": "--class 0 1 2 3",
        "none": "--guidance 0",
        "seven": "--class 7",
        "cycle": "--class 7 3",
        "guided": "--class 7 --guidance 4",
        "zero": "--class 7 --guidance 0",
        "parts": "--class 7 3 --batch 3",
    }
    for name, words in flags.items():
        assert (
            main(f"sample {classy} --n 4 --steps 4 --out {name}.png {words}".split())
            == 0
        )
    got = {name: pixels_of(f"{name}.png") for name in flags}
    wide = got["none"].shape[1] // 4
    one = lambda name, i: got[name][:, i * wide + i // 2 :][:, : wide - 4]
    assert (one("cycle", 0) == one("seven", 0)).all() and (
        one("cycle", 1) != one("seven", 1)
    ).any()
    for a, b in (("zero", "none"), ("parts", "cycle"), ("all", "named")):
        assert abs(got[a] - got[b]).max() <= 1, (a, b)
    assert (
        len(
            {
                got[name].tobytes()
                for name in ("all", "none", "seven", "cycle", "guided")
            }
        )
        == 5
    )
    refused(capsys, ["sample", classy, "--class", "10"], 2, "--class", "0..9", "10")
    refused(capsys, ["sample", classy, "--class", "-1"], 2, "--class", "0..9", "-1")
    refused(
        capsys,
        ["sample", classy, "--interpolate", "0", "1", "--class", "1", "2"],
        2,
        "--interpolate",
        "--class",
        "2",
    )
    for words in (
        "--interpolate 0 1 --class 3 --guidance 2",
        "--trajectory --class 1 2 --n 2",
        "--separate --class 5 --n 2",
    ):
        assert main(f"sample {classy} --steps 3 {words}".split()) == 0


def test_classes_have_the_names_of_their_folders(capsys):
    Path("zoo").mkdir()
    for kind in ("cat", "sea lion", "2"):
        drawings(f"zoo/{kind}", 2)
    assert (
        main(
            [
                "train",
                "zoo",
                "--out",
                "run",
                "--image-size",
                "6",
                "--num-classes",
                "3",
                *TINY,
                "--label-drop",
                "0.5",
                "--lr",
                "0.05",
                "--steps",
                "30",
            ]
        )
        == 0
    )
    assert json.loads(Path("run/config.json").read_text())["classes"] == [
        "2",
        "cat",
        "sea lion",
    ]
    draw = lambda name, *words: main(
        [
            "sample",
            "run",
            "--n",
            "2",
            "--steps",
            "3",
            "--out",
            f"{name}.png",
            "--class",
            *words,
        ]
    )
    assert [
        draw("a", "cat", "sea lion"),
        draw("b", "2"),
        draw("c", "0", "1"),
        draw("d", "2", "cat"),
    ] == [0] * 4
    assert (pixels_of("c.png") == pixels_of("d.png")).all() and len(
        {pixels_of(f"{name}.png").tobytes() for name in "abc"}
    ) == 3
    refused(
        capsys,
        ["sample", "run", "--class", "sea lions"],
        2,
        "--class",
        "2, cat, sea lion",
        "'sea lions'",
        "did you mean sea lion?",
    )
    refused(capsys, ["sample", "run", "--class", "3"], 2, "--class", "0..2", "got 3")
    assert "--class 2 cat 'sea lion'" in html.unescape(
        Path("run/summary.html").read_text(encoding="utf-8")
    )
    assert (
        main(["resume", "run", "--steps", "31", "--device", "cpu"]) == 0
        and json.loads(Path("run/config.json").read_text())["classes"][2] == "sea lion"
    )


def test_a_run_that_never_saw_no_label_must_be_told_one(capsys):
    # its own pictures show all classes
    assert (
        main(
            [
                "train",
                "digits",
                "--out",
                "run",
                "--num-classes",
                "10",
                "--label-drop",
                "0",
                "--image-size",
                "6",
                *TINY,
            ]
        )
        == 0
    )
    assert main("sample run --n 2 --steps 2 --class 1 --out x.png".split()) == 0
    # all classes in turn
    assert main("sample run --n 2 --steps 2 --out all.png".split()) == 0
    refused(
        capsys, ["sample", "run", "--interpolate", "0", "1"], 2, "--class", "label_drop"
    )
    refused(
        capsys,
        ["sample", "run", "--class", "1", "--guidance", "2"],
        2,
        "--guidance",
        "label_drop",
    )


def figures(path):
    return json.loads(Path(path).read_text())


def test_evaluate_measures_and_keeps_the_figures(run, capsys):
    words = [
        "evaluate",
        str(run),
        "--n",
        "60",
        "--steps",
        "3",
        "--bits",
        "2",
        "--threads",
        "1",
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert (
        "60 samples" in said
        and "Fréchet distance to 450 held-out" in said
        and said.rstrip().endswith("evaluation.json")
    )
    first = figures(run / "evaluation.json")
    assert (
        first["n"],
        first["reference"],
        first["judge"]["name"],
        first["sampler"]["name"],
        first["sampler"]["steps"],
    ) == (60, 450, "digits", "DDIM", 3)
    assert (
        first["bits"]["n"] == 2
        and first["bits"]["levels"] == 17
        and len(first["bits"]["curve"]) == 19
        and "agreement" not in first
        and not (run / "judge").exists()
    )
    # nothing is left to chance, nothing is overwritten
    assert main(words) == 0 and figures(run / "evaluation-2.json") == first
    assert (
        main([*words, "--seed", "1"]) == 0
        and figures(run / "evaluation-3.json")["distance"] != first["distance"]
    )
    refused(
        capsys,
        [*words, "--out", str(run / "evaluation.json")],
        2,
        "--out",
        "evaluation.json",
    )


def test_evaluate_trains_a_judge_where_none_fits_and_keeps_it(classy, tmp_path, capsys):
    run = shutil.copytree(classy, tmp_path / "run")
    words = [
        "evaluate",
        str(run),
        "--n",
        "40",
        "--sampler",
        "dpm",
        "--steps",
        "2",
        "--cas",
        "--out",
        "figures.json",
    ]
    assert main(words) == 0
    found = figures("figures.json")
    assert (
        found["judge"]["name"] == "judge"
        and 0 <= found["agreement"] < 0.7 < found["agreement_real"]
        and found["score"]["samples"] < found["score"]["real"]
    )
    kept = (run / "judge" / "weights.safetensors").read_bytes()
    assert (
        main([*words[:-1], "again.json"]) == 0
        and (run / "judge" / "weights.safetensors").read_bytes() == kept
        and figures("again.json")["distance"] == found["distance"]
    )


@pytest.mark.parametrize(
    "flags, status, words",
    [
        ("--n 1", 2, "--n 1"),
        ("--bits -1", 2, "--bits -1"),
        ("--judge nobody", 2, "--judge nobody"),
        ("--out figures.txt", 2, "--out figures.txt"),
        ("--cas", 1, "cas labels"),
        ("--guidance 2", 1, "guidance"),
        ("--steps 21", 2, "--steps 20 21"),
        ("--judge inception", 2, "--judge 3"),
        ("--sampler dpm --eta 1", 2, "--eta dpm"),
    ],
)
def test_evaluate_refuses(run, capsys, flags, status, words):
    refused(
        capsys, ["evaluate", run, "--n", "20", *flags.split()], status, *words.split()
    )


def test_evaluate_needs_labels_or_a_judge_for_a_folder(tmp_path, capsys):
    drawings(tmp_path / "art")
    assert (
        main(
            ["train", str(tmp_path / "art"), "--out", "run", "--image-size", "8", *TINY]
        )
        == 0
    )
    refused(capsys, ["evaluate", "run", "--n", "4"], 2, "labels", "judge", "inception")
    shutil.rmtree(tmp_path / "art")
    refused(capsys, ["evaluate", "run", "--n", "4"], 2, "art")


def test_evaluate_without_torchmetrics_says_what_to_install(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    refused(
        capsys,
        ["evaluate", run, "--n", "20", "--steps", "2"],
        1,
        "torchmetrics",
        "pip install",
    )


def test_threads(run, monkeypatch, capsys):
    seen = []
    note = lambda args: seen.append(torch.get_num_threads())
    monkeypatch.setattr(commands, "sample_command", note)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert main(f"sample {run} --threads 2".split()) == 0
    assert seen == [2] and torch.get_num_threads() == 1
    for many in ("3", "100000"):
        refused(capsys, ["sample", run, "--threads", many], 2, "--threads", "2", many)


def test_separate_without_out_goes_on_where_it_was(run, capsys):
    for n, name in ((2, "ddim-5-seed0"), (4, "ddim-5-seed0"), (1, "ddim-5-seed0")):
        assert main(f"sample {run} --separate --steps 5 --n {n}".split()) == 0
        assert capsys.readouterr().out == f"{run / 'samples' / name}\n"
    assert main(f"sample {run} --separate --steps 5 --eta 1 --n 1".split()) == 0
    assert capsys.readouterr().out == f"{run / 'samples' / 'ddim-5-seed0-2'}\n"
    assert len(list((run / "samples" / "ddim-5-seed0").glob("*.png"))) == 4


def test_one_bar_over_all(run):
    "On a terminal: one bar, over the steps of all batches."
    main_end, other_end = pty.openpty()
    # 24 rows, 100 columns
    fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *f"sample {run} --n 7 --batch 2 --steps 5 --out x.png".split()],
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=other_end,
    )
    process.wait(timeout=300)
    said = os.read(main_end, 100_000).decode()
    for end in (main_end, other_end):
        os.close(end)
    assert (
        process.returncode == 0
        and "20/20" in said
        and said.count("100%") == 1
        and said.count("\n") == 1
    ), said


def test_a_folder_of_images(capsys):
    assert main(["train", drawings("art"), "--image-size", "8", *TINY]) == 0
    assert (
        main(["sample", "runs/art", "--n", "2", "--steps", "3", "--out", "x.png"]) == 0
    )
    with Image.open("x.png") as picture:
        assert picture.mode == "RGB"
    assert not Path("runs/art/report.json").exists()


def test_mnist(capsys):
    places = [
        os.environ.get("DDPM_LIT_DATA"),
        Path(__file__).parents[2] / "shared" / "data",
    ]
    found = next((p for p in places if p and Path(p, "MNIST", "raw").is_dir()), None)
    if found is None:
        pytest.skip(
            "MNIST is neither in DDPM_LIT_DATA nor in ../shared/data, and tests "
            "fetch nothing"
        )
    assert main(["train", "mnist", "--data-dir", str(found), *TINY]) == 0
    assert (
        main(["sample", "runs/mnist", "--n", "1", "--steps", "2", "--out", "x.png"])
        == 0
    )
    assert Image.open("x.png").size == (56, 56)


def test_resumed_is_uninterrupted_and_the_seed_decides(capsys):
    train = [
        "train",
        drawings("art"),
        "--image-size",
        "8",
        *TINY,
        "--lr-decay",
        "constant",
    ]
    for name, flags in {
        "once": "",
        "again": "",
        "twice": "--steps 4",
        "other": "--seed 1",
    }.items():
        assert main([*train, *flags.split()]) == 0
    assert main(["resume", "runs/art-3", "--steps", "6"]) == 0
    once, again, twice, other = (
        Path("runs", name) for name in ("art", "art-2", "art-3", "art-4")
    )
    for file in ("weights.safetensors", "samples_ddpm.png"):
        assert (
            (once / file).read_bytes()
            == (again / file).read_bytes()
            == (twice / file).read_bytes()
            != (other / file).read_bytes()
        )
    refused(capsys, ["resume", twice, "--steps", "5"], 2, "--steps", "6", "5")


# Flags, presets, help


def test_flags_replace_fields_of_the_preset_wherever_the_data_stand():
    for argv in (
        ["mnist", "--lr", "0.5"],
        ["--lr", "0.5", "mnist"],
        ["--out", "digits", "--lr", "0.5", "mnist"],
    ):
        args = read_train(argv)
        assert (args.data, args.train.lr, args.unet, args.noise) == (
            "mnist",
            0.5,
            PRESETS["mnist"].unet,
            PRESETS["mnist"].noise,
        )
    # no level of the digits' network has 7 pixels
    assert read_train(
        ["--out", "digits", "mnist", "--attention", "7"]
    ).unet.attention == (7,)
    assert read_train(["some/folder"]).unet.in_channels == 3
    assert str(read_train(["mnist", "--data-dir", "x"]).data_dir) == "x"


@pytest.mark.parametrize(
    "line, name",
    [
        ("digits", "digits"),
        ("mnist", "mnist"),
        ("fashion-mnist", "mnist"),
        ("cifar10", "cifar10"),
        ("celeba", "celeba64-small"),
        ("celeba --preset celeba64", "celeba64"),
        ("--preset celeba64 celeba", "celeba64"),
        ("celeba --preset=celeba64", "celeba64"),
        ("some/folder", "folder"),
        ("some/folder --preset cifar10", "cifar10"),
        ("mnist --preset digits", "digits"),
        ("celeba --out digits", "celeba64-small"),
        ("faces.zip", "folder"),
    ],
)
def test_each_data_set_has_its_preset(line, name):
    args, preset = read_train(line.split()), PRESETS[name]
    assert (args.unet, args.train, args.noise, args.param) == (
        preset.unet,
        preset.train,
        preset.noise,
        preset.param,
    )
    assert args.data == next(
        word
        for word in line.split()
        if word
        in ("mnist", "fashion-mnist", "cifar10", "celeba", "some/folder", "faces.zip")
        or line == word
    )


def test_presets_are_networks_and_published_recipes():
    assert set(NETWORKS) == set(PRESETS) - {"folder"} == {
        "digits",
        "mnist",
        "cifar10",
        "celeba64",
        "celeba64-small",
    } and set(FITTING) == set(NAMED_DATA)
    for name, config in NETWORKS.items():
        assert PRESETS[name].unet == (
            replace(config, conditioning="scale_shift") if name == "mnist" else config
        )
    paper = PRESETS["cifar10"].train
    assert (
        paper.steps,
        paper.batch_size,
        paper.lr,
        paper.warmup,
        paper.ema_decay,
        paper.flip,
        paper.grad_clip,
        paper.weighting,
    ) == (800_000, 128, 2e-4, 5000, 0.9999, True, 1.0, "simple")
    # DDPM, appendix B
    assert (
        PRESETS["cifar10"].param,
        PRESETS["cifar10"].noise.schedule,
        PRESETS["cifar10"].noise.T,
        PRESETS["cifar10"].unet.dropout,
    ) == ("eps", "linear", 1000, 0.1)
    assert PRESETS["digits"].train.precision == "fp32"


def test_schedules_are_built_as_asked():
    assert ScheduleConfig("linear", 10, 0.1, 0.2).build().beta[
        [1, 10]
    ].tolist() == pytest.approx([0.1, 0.2])
    assert (
        len(
            {
                ScheduleConfig(name, 10).build().alpha_bar[5].item()
                for name in ("linear", "scaled_linear", "cosine", "sigmoid")
            }
        )
        == 4
    )


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    top = capsys.readouterr().out
    assert main([]) == 0 and capsys.readouterr().out == top
    for word in ("train", "resume", "sample", "130"):
        assert word in top
    assert main(["train", "mnist", "--help"]) == 0
    out = " ".join(re.sub("[│|]", " ", capsys.readouterr().out).split())
    for words in (
        "--batch-size INT images in a step",
        f"(default: {PRESETS['mnist'].train.steps})",
        "--beta-end",
        "--image-size INT",
        "--num-classes INT None",
        "DATA",
    ):
        assert words in out
    for command in ("sample", "resume"):
        assert main([command, "--help"]) == 0
    assert "RUN" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert re.fullmatch(r"ddpm-lit \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--version",
        "tran",
        "sample --help",
        "sample x --stesp 5",
        "resume --help",
        "evaluate --help",
        "train",
        "train --help",
        "train mnist --help",
        "train digits --widht 3",
        "train digits --channels 33",
        "--completion bash",
    ],
)
def test_what_needs_no_torch_does_not_wait_for_it(line):
    script = (
        "import sys; from ddpm_lit.command.main import main; main(sys.argv[1:]); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *line.split()],
        env=ENV,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_the_former_address_still_answers():
    done = subprocess.run(
        [sys.executable, "-m", "ddpm_lit.cli", "--version"],
        env=ENV,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.startswith("ddpm-lit ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_know_commands_and_flags(shell, capsys):
    assert main(["--completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in (*COMMANDS, "batch-size", "interpolate"))
    refused(capsys, ["--completion", "basic"], 2, "--completion", "bash", "'basic'")


def test_default_values_are_what_help_shows(capsys):
    "No default is written by hand: each stands in the help as the field has it."
    assert main(["sample", "--help"]) == 0
    out = " ".join(re.sub("[│|]", " ", capsys.readouterr().out).split())
    args = read_words("sample", ["run"])
    assert args == parse(Sample, ["run"])
    for name in ("sampler", "guidance", "columns", "batch", "precision"):
        assert f"(default: {getattr(args, name)})" in out, name


def test_the_samples_of_a_short_training_are_few(capsys):
    tiny = [word for word in TINY if word not in ("--final", "full")]
    assert main(["train", "digits", "--out", "run", *tiny]) == 0
    out = capsys.readouterr().out
    assert "only 64 samples are drawn, by 10 steps of DDIM" in out
    assert "ddpm-lit resume run --final full" in out
    assert Path("run/samples_ddim.png").is_file() and Path("run/summary.html").is_file()
    assert not Path("run/samples.gif").exists() and not Path("run/report.json").exists()
    assert main(["resume", "run", "--final", "none", "--steps", "7"]) == 0
    assert "no samples are drawn" in capsys.readouterr().out
    assert main(["resume", "run", "--final", "full"]) == 0
    assert Path("run/samples.gif").is_file() and Path("run/report.json").is_file()


def test_a_missing_package_is_missed_before_the_training(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused(capsys, ["train", "digits", *TINY], 1, "matplotlib", "pip install")


# Wrong use: 2


def texts(tree):
    "The strings in a module that are no docstrings."
    said = {id(x.value) for x in ast.walk(tree) if isinstance(x, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in said:
                yield node.value


def test_the_package_names_only_flags_that_exist():
    package = Path(commands.__file__).parents[1]
    modules = [ast.parse(path.read_text()) for path in package.rglob("*.py")]
    named = {
        flag
        for module in modules
        for text in texts(module)
        for flag in re.findall(FLAG, text)
    }
    own = {"--version", "--completion", "--tyro-print-completion", "--no-"}
    assert "--out" in named and named - own <= set().union(*FLAGS.values())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_names_only_flags_of_its_command(command, capsys):
    assert main([command, "--help"]) == 0
    shown = set(re.findall(FLAG, capsys.readouterr().out))
    assert shown == FLAGS[command] and len(shown) > 8


@pytest.mark.parametrize(
    "line, words",
    [
        ("paint", "'paint'"),
        ("evalaute run", "'evalaute' mean evaluate?"),
        ("train", "DATA"),
        ("train digts", "'digts' digits"),
        ("train none/such", "'none/such'"),
        ("train empty", "empty"),
        ("train bare", "bare"),
        ("train file", "file"),
        ("train digits --stesp 5", "--stesp --steps"),
        ("train digits --data nowhere", "--data --data-dir"),
        ("train digits 5", "5"),
        ("train digits --steps", "--steps"),
        ("train digits --steps many", "--steps 'many'"),
        ("train digits --steps 0", "--steps 0"),
        ("train digits --lr fast", "--lr 'fast'"),
        ("train digits --lr 2", "--lr 2"),
        ("train digits --num-classes few", "--num-classes 'few'"),
        ("train digits --num-classes 7", "--num-classes 10 7"),
        (f"train digits --seed {2**63}", f"--seed {2**63}"),
        ("train digits --param noise", "--param 'noise'"),
        ("train digits --channels 33", "--channels 33"),
        ("train digits --in-channels 4", "--in-channels 4"),
        ("train digits --image-size 5000", "--image-size 5000"),
        ("train digits --context-dim 3", "--context-dim digits"),
        ("train digits --preset digts", "--preset 'digts'"),
        ("train digits --track tensorbord", "--track 'tensorbord'"),
        ("train digits --attributes Smiling", "attributes celeba"),
        ("train celeba --attributes Smiling Male --context-dim 3", "--context-dim 2 3"),
        ("train digits --multipliers a b", "--multipliers 'a' 'b'"),
        ("train digits --T 0", "--T 0"),
        ("train digits --schedule linear --T 4000", "--T 4000"),
        ("train digits --schedule linear --beta-end 1.5", "--beta-end (0, 1) 1.5"),
        ("train digits --schedule cosine --beta-start 0.5", "--beta-start cosine"),
        ("train digits --device abacus", "--device 'abacus'"),
        ("train digits --out full", "--out full"),
        ("train digits --out file", "--out file"),
        ("train art --num-classes 3", "--num-classes art"),
        ("sample", "RUN"),
        ("sample none/such", "'none/such'"),
        ("resume none/such", "'none/such'"),
    ],
)
def test_wrong_use(capsys, line, words):
    for folder in ("empty", "bare", "full"):
        Path(folder).mkdir()
    for file in ("file", "bare/notes.txt", "full/something"):
        Path(file).touch()
    drawings("art", 2)
    # lest a refusal that fails trains for minutes
    argv = line.split() + (
        TINY if "--out" in line or line.startswith("train art") else []
    )
    refused(capsys, argv, 2, *words.split())


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--n 0", "--n 0"),
        ("--batch 0", "--batch 0"),
        ("--columns 0", "--columns 0"),
        ("--threads 0", "--threads 0"),
        ("--seed -1", "--seed -1"),
        (f"--seed {2**63}", f"--seed {2**63}"),
        ("--steps 0", "--steps 0"),
        ("--steps 21", "--steps 20 21"),
        ("--sampler ddpm --steps 21", "--steps 20 21"),
        ("--sampler dpm --steps 21", "--steps 20 21"),
        ("--eta 1.5", "--eta 1.5"),
        ("--sampler ddpm --eta 1", "--eta ddpm"),
        ("--sampler dpm --variance beta", "--variance dpm"),
        ("--spacing wide", "--spacing 'wide'"),
        ("--spacing logsnr", "--spacing 'logsnr'"),
        ("--precision fp16", "--precision 'fp16'"),
        ("--class 3", "--class 3"),
        ("--class seven", "--class 'seven'"),
        ("--attributes Smiling=1", "--attributes"),
        ("--attributes Smiling --class 1", "--class --attributes"),
        ("--guidance 2", "--guidance 2"),
        ("--interpolate 1 2 --trajectory", "--trajectory --interpolate"),
        ("--encode whole.png --inpaint whole.png mask.png", "--encode --inpaint"),
        ("--trajectory --separate", "--separate --trajectory"),
        ("--interpolate 1 2 --eta 1", "--interpolate"),
        ("--interpolate 1 2 --sampler ddpm", "--interpolate"),
        ("--encode whole.png --sampler ddpm", "--encode"),
        ("--encode whole.png --n 3", "--encode --n"),
        ("--interpolate 1 2 --n 1", "--n 1"),
        ("--interpolate 1", "--interpolate 2"),
        ("--inpaint whole.png", "--inpaint 2"),
        ("--interpolate 1 none.png", "'none.png'"),
        ("--encode letter.txt", "letter.txt"),
        ("--interpolate wide.png 1", "wide.png 8x8 10x8"),
        ("--encode wide.png", "wide.png"),
        ("--inpaint wide.png mask.png", "wide.png"),
        ("--inpaint whole.png wide.png", "wide.png"),
        ("--inpaint whole.png letter.txt", "letter.txt"),
        ("--inpaint whole.png black.png", "black.png"),
        ("--out x.gif", "--out --trajectory"),
        ("--out x.bmp", "--out x.bmp"),
        ("--out x.png --separate", "--out --separate x.png"),
        ("--out taken.png --separate", "--out taken.png"),
        ("--out taken.png", "--out taken.png --overwrite"),
        ("--out full --separate", "--out full --overwrite"),
        ("--out begun --separate --steps 6", "--steps 5 6 begun --overwrite"),
        (
            "--out begun --separate --sampler dpm --steps 5",
            "--sampler DDIM DPMSolver --overwrite",
        ),
        ("--out begun --separate --steps 5 --seed 1", "--seed 0 1 begun"),
    ],
)
def test_wrong_use_of_sample(capsys, run, flags, words):
    Path("full").mkdir()
    Path("full/something").touch()
    Path("taken.png").write_text("mine")
    if "begun" in flags:
        assert (
            main(
                [
                    "sample",
                    str(run),
                    "--n",
                    "1",
                    "--steps",
                    "5",
                    "--separate",
                    "--out",
                    "begun",
                ]
            )
            == 0
        )
    pictures()
    refused(capsys, ["sample", run, *flags.split()], 2, *words.split())
    assert Path("taken.png").read_text() == "mine"


def test_overwrite_replaces_what_it_names_and_nothing_else(run):
    Path("full").mkdir()
    Path("full/letter.txt").write_text("mine")
    Path("taken.png").touch()
    flags = ["sample", str(run), "--n", "2", "--steps", "2", "--overwrite", "--out"]
    assert main([*flags, "taken.png"]) == main([*flags, "full", "--separate"]) == 0
    assert Image.open("taken.png").size == (130, 64) and files("full") == [
        "full/00000.png",
        "full/00001.png",
        "full/letter.txt",
        "full/sampling.json",
    ]


# Failures: 1


def test_truncated_images(capsys):
    drawings("art")
    spoil = lambda name: Path(f"art/{name}.png").write_bytes(
        Path(f"art/{name}.png").read_bytes()[:100]
    )
    spoil(3)
    # one in eight is left out, and named
    assert main(["train", "art", "--image-size", "8", *TINY]) == 0
    err = capsys.readouterr().err
    assert (
        err.startswith("ddpm-lit: warning: ")
        and err.count("\n") == 1
        and "3.png" in err
    ), err.splitlines()
    for name in (1, 2, 4, 5):
        spoil(name)
    refused(capsys, ["train", "art", *TINY], 1, "art", "1.png")


@pytest.mark.parametrize(
    "file, text",
    [
        ("weights.safetensors", None),
        ("config.json", None),
        ("schedule.json", None),
        ("weights.safetensors", "x"),
        ("config.json", "{"),
        ("config.json", "{}"),
    ],
)
def test_a_run_with_a_file_missing_or_broken(capsys, run, file, text):
    (run / file).unlink()
    if text is not None:
        (run / file).write_text(text)
    refused(capsys, ["sample", run], 1, run, *([file] if text != "{}" else ["format"]))


def test_weights_that_do_not_fit_the_configuration(capsys, run):
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"channels": 8', '"channels": 16'))
    assert text != (run / "config.json").read_text()
    refused(capsys, ["sample", run], 1, "weights.safetensors", "fit")


def test_a_configuration_that_was_edited(capsys, run):
    config = json.loads((run / "config.json").read_text())
    for name, value in {"channels": "eight", "dropout": "0.1", "blocks": 1.5}.items():
        spoilt = config | {"unet": config["unet"] | {name: value}}
        (run / "config.json").write_text(json.dumps(spoilt))
        refused(capsys, ["sample", run], 1, run, name, "must be a", repr(value))


def test_a_run_without_a_checkpoint_or_training(capsys, run):
    shutil.rmtree(run / "checkpoints")
    refused(capsys, ["resume", run], 1, run, "checkpoints")
    config = json.loads((run / "config.json").read_text())
    del config["train"]
    (run / "config.json").write_text(json.dumps(config))
    refused(capsys, ["resume", run], 1, run, "no training")


def test_an_output_that_cannot_be_written(capsys, run):
    # tests may run as root, whom no permission stops: a file in the place of a folder
    # does
    Path("file").write_text("mine")
    for argv in (
        ["train", "digits", "--out", "file/run", *TINY],
        ["sample", run, "--out", "file/x.png"],
        ["sample", run, "--separate", "--out", "file/x"],
    ):
        refused(capsys, argv, 1, "cannot write", "file")
    Path("runs").write_text("mine")
    refused(capsys, ["train", "digits", *TINY], 1, "cannot write", "runs")


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "digits", "--out", "new", *TINY],
        ["sample", "run", "--out", "new.png"],
        ["sample", "run", "--separate", "--out", "new"],
    ],
)
def test_a_full_disk(capsys, run, monkeypatch, argv):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(capsys, argv, 1, "cannot write", "No space left on device")


def test_a_disk_that_fills_while_it_writes(run):
    "The kernel itself refuses to let a file grow beyond 4 kB."
    before = files()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    done = subprocess.run(
        [*COMMAND, "sample", "run", "--n", "64", "--out", "new.png"],
        env=ENV,
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert (
        done.returncode == 1
        and done.stderr.count("\n") == 1
        and "new.png" in done.stderr
        and "Traceback" not in done.stderr
    ), done.stderr
    assert files() == before


def test_a_loss_that_is_not_finite(capsys, monkeypatch):
    loss = train.ddpm_loss
    endless = lambda *given, **more: loss(*given, **more) * float("nan")
    monkeypatch.setattr(train, "ddpm_loss", endless)
    assert main(["train", "digits", "--out", "run", *TINY]) == 1
    err = capsys.readouterr().err
    assert err.startswith("ddpm-lit: ") and "nan" in err and err.count("\n") == 1
    assert [p.stem for p in Path("run/checkpoints").iterdir()] == ["00000000"]


def test_unforeseen_errors_are_one_sentence_too(capsys, monkeypatch):
    monkeypatch.setattr(
        "ddpm_lit.command.commands.load_images", lambda *args, **options: {}["surprise"]
    )
    refused(capsys, ["train", "digits", *TINY], 1, "KeyError", "surprise", "--debug")
    assert main(["train", "digits", *TINY, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert explain(MemoryError())[1].startswith("there is not enough memory")
    assert explain(KeyboardInterrupt()) == (130, "stopped")


# Signals and pipes


def until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_stopped_can_be_resumed(number, capsys):
    # a test that runs in the background inherits deafness
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [
        *COMMAND,
        "train",
        "digits",
        "--image-size",
        "6",
        *TINY,
        "--steps",
        "100000",
        "--checkpoint-every",
        "100000",
        "--out",
        "run",
    ]
    process = subprocess.Popen(
        command,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,
    )
    try:
        until(lambda: Path("run/log.jsonl").exists())
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 128 + number and "Traceback" not in err
    assert "ddpm-lit resume run" in err.splitlines()[-1], err
    last = max(Path("run/checkpoints").iterdir()).stem
    assert int(last) > 0 and f"step {int(last)} of 100000" in err
    lines = Path("run/log.jsonl").read_text().splitlines()
    assert len(lines) == int(last)  # no step is lost, none is counted twice
    assert (
        f"stopped at step {int(last):,} of 100,000"
        in Path("run/summary.html").read_text()
    )
    assert (
        main(["resume", "run", "--steps", str(int(last) + 2), "--device", "cpu"]) == 0
    )
    assert len(Path("run/log.jsonl").read_text().splitlines()) == int(last) + 2
    assert (
        Path("run/samples.gif").is_file()
        and "complete" in Path("run/summary.html").read_text()
    )


def stopped(line, number, condition):
    """Start the command, send it a signal when `condition` holds, and return its status
    and what it said."""
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*COMMAND, *line.split()],
        env=ENV,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,
    )
    try:
        until(condition)
        process.send_signal(number)
        err = process.communicate(timeout=100)[1]
    finally:
        process.kill()
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sampling_into_a_folder_that_is_stopped_can_be_completed(run, number):
    line = "sample run --steps 2 --separate --out new --n"
    status, err = stopped(
        f"{line} 1000000", number, lambda: Path("new/00010.png").exists()
    )
    found = sorted(p.name for p in Path("new").iterdir())
    assert status == 128 + number and re.fullmatch(
        (
            rf"ddpm-lit: stopped with {len(found) - 1} of 1000000 images in new; the "
            r"same command continues\n"
        ),
        err,
    ), err
    assert found == [*(f"{i:05d}.png" for i in range(len(found) - 1)), "sampling.json"]
    more = len(found) + 5
    assert (
        main([*line.split(), str(more)])
        == main([*line.replace("new", "once").split(), str(more)])
        == 0
    )
    assert {p.name: p.read_bytes() for p in Path("new").iterdir()} == {
        p.name: p.read_bytes() for p in Path("once").iterdir()
    }


def test_ctrl_c_while_a_grid_is_drawn_leaves_nothing(run):
    log, before = Path("log"), files()
    spy = """import os, sys, ddpm_lit.command.commands as c
from ddpm_lit.command.main import main
steps, batches = c.DrawConfig.steps, []
def five(config, batch):
    batches.append(batch)
    if len(batches) == 5: os.mkdir("log")
    return steps(config, batch)
c.DrawConfig.steps = five
sys.exit(main(sys.argv[1:]))"""
    COMMAND[1:], old = ["-c", spy], COMMAND[1:]
    try:
        status, err = stopped(
            "sample run --n 100000 --batch 8 --out new.png", signal.SIGINT, log.exists
        )
    finally:
        COMMAND[1:] = old
    log.rmdir()
    assert (status, err) == (130, "ddpm-lit: stopped\n") and files() == before


def test_a_reader_that_goes_away():
    script = (
        f"{sys.executable} -m ddpm_lit train --help | true; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", script], env=ENV, capture_output=True, text=True
    )
    assert done.stderr == "" and done.stdout.strip() in ("0", "141"), done


def test_importing_the_library_imports_neither_the_command_nor_its_tools():
    script = (
        "import sys, ddpm_lit; print([m for m in ('tyro', 'matplotlib', 'sklearn', "
        "'PIL', 'torchvision', 'accelerate', 'torch', 'ddpm_lit.command') if m in "
        "sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", script], env=ENV, capture_output=True, text=True
        ).stdout
        == "[]\n"
    )


# Attributes


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """A CelebA of twenty random pictures, and a run that was told two attributes of
    each."""
    root = tmp_path_factory.mktemp("faces")
    (root / "celeba/img_align_celeba").mkdir(parents=True)
    pixels, names, rows = (
        np.random.default_rng(0).integers(0, 256, (20, 22, 18, 3), np.uint8),
        ["Eyeglasses", "Male", "Smiling"],
        [],
    )
    for i, image in enumerate(pixels, 1):
        Image.fromarray(image).save(root / f"celeba/img_align_celeba/{i:06}.png")
        rows.append(
            f"{i:06}.jpg "
            + " ".join(str(1 if (i >> bit) % 2 else -1) for bit in range(3))
        )
    (root / "celeba/list_attr_celeba.txt").write_text(
        "\n".join(["20", " ".join(names), *rows, ""])
    )
    train = [
        "train",
        "celeba",
        "--data-dir",
        str(root),
        "--attributes",
        "Smiling",
        "Eyeglasses",
        "--image-size",
        "8",
        "--out",
        str(root / "run"),
        *TINY,
    ]
    assert (
        main(
            [
                *train,
                "--lr",
                "0.05",
                "--label-drop",
                "0.5",
                "--steps",
                "30",
                "--checkpoint-every",
                "30",
                "--precision",
                "fp32",
            ]
        )
        == 0
    )
    return root


def test_attributes_are_told_by_name(faces, capsys):
    run = faces / "run"
    config = json.loads((run / "config.json").read_text())
    assert (
        config["attributes"] == ["Smiling", "Eyeglasses"]
        and config["unet"]["context_dim"] == 2
    )
    flags = {
        "none": "",
        "both": "--attributes Smiling=1 Eyeglasses=1",
        "swapped": "--attributes Eyeglasses Smiling",
        "smile": "--attributes Smiling",
        "said": "--attributes Smiling=1 Eyeglasses=0",
        "glasses": "--attributes Eyeglasses=1",
        "guided": "--attributes Smiling --guidance 3",
        "ignored": "--attributes Smiling --guidance 0",
        "half": "--attributes Smiling=0.5",
    }
    for name, words in flags.items():
        assert (
            main(f"sample {run} --n 2 --steps 4 --out {name}.png {words}".split()) == 0
        )
    got = {name: pixels_of(f"{name}.png") for name in flags}
    for a, b in (("both", "swapped"), ("smile", "said"), ("ignored", "none")):
        assert abs(got[a] - got[b]).max() <= 1, (a, b)
    assert (
        len(
            {
                got[name].tobytes()
                for name in ("none", "both", "smile", "glasses", "guided", "half")
            }
        )
        == 6
    )
    for words in ("--trajectory", "--interpolate 0 1", "--separate"):
        assert (
            main(f"sample {run} --n 2 --steps 3 --attributes Smiling {words}".split())
            == 0
        )


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--attributes Smilling=1", "--attributes 'Smilling' mean Smiling?"),
        ("--attributes Male", "--attributes 'Male'"),
        ("--attributes Smiling=2", "--attributes Smiling=2"),
        ("--attributes Smiling=yes", "--attributes Smiling=yes"),
        ("--attributes Smiling=nan", "--attributes Smiling=nan"),
        ("--class 1", "--class --attributes Smiling=1"),
        ("--guidance 2", "--guidance --attributes"),
        ("--attributes", "--attributes"),
    ],
)
def test_attributes_that_are_refused(faces, capsys, flags, words):
    refused(capsys, ["sample", faces / "run", *flags.split()], 2, *words.split())


def test_a_run_with_attributes_is_resumed_with_them(faces, tmp_path):
    run = shutil.copytree(faces / "run", tmp_path / "run")
    assert (
        main(["resume", str(run), "--steps", "33", "--workers", "0", "--device", "cpu"])
        == 0
    )
    assert [line["step"] for line in read_log(run)] == list(
        range(1, 34)
    ) and json.loads((run / "config.json").read_text())["train"]["workers"] == 0


def test_data_that_changed_are_refused(faces, tmp_path, capsys):
    run = shutil.copytree(faces / "run", tmp_path / "run")
    root = shutil.copytree(faces, tmp_path / "other")
    path = root / "celeba/list_attr_celeba.txt"
    path.write_text(path.read_text().replace("000003.jpg 1", "000003.jpg -1"))
    capsys.readouterr()
    assert main(["resume", str(run), "--data-dir", str(root)]) == 1
    assert "data must be those of" in capsys.readouterr().err


# Speed and trackers


def test_sampling_in_bfloat16(run):
    for name, flags in {"full": "", "half": "--precision bf16"}.items():
        assert (
            main(f"sample {run} --n 4 --steps 5 --out {name}.png {flags}".split()) == 0
        )
    apart = abs(pixels_of("full.png") - pixels_of("half.png"))
    assert 0 < apart.max() <= 24 and apart.mean() < 3


@pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
def test_curves_in_tensorboard(capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert (
        main(
            [
                "train",
                drawings("art"),
                "--image-size",
                "8",
                "--track",
                "tensorboard",
                *TINY,
                "--sample-every",
                "3",
            ]
        )
        == 0
    )
    assert main(["resume", "runs/art", "--steps", "8", "--track", "tensorboard"]) == 0
    events = EventAccumulator("runs/art/tensorboard")
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (line["step"], pytest.approx(line["loss"])) for line in read_log("runs/art")
    ]
    assert [e.step for e in events.Images("samples")] == [3, 6]
    assert {p.name for p in Path("runs/art/samples").iterdir()} == {
        "step-0000003.png",
        "step-0000006.png",
    }


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_not_installed(capsys):
    for argv in (
        ["train", drawings("art"), "--image-size", "8", *TINY],
        ["resume", "runs/art"],
    ):
        refused(
            capsys,
            [*argv, "--track", "wandb"],
            2,
            "--track",
            "wandb is not: pip install wandb",
        )


@pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
def test_a_tracker_that_does_not_start_leaves_nothing(capsys, monkeypatch):
    from accelerate.tracking import TensorBoardTracker

    def start(tracker):
        raise OSError("no room for curves")

    monkeypatch.setattr(TensorBoardTracker, "start", start)
    refused(
        capsys,
        [
            "train",
            drawings("art"),
            "--image-size",
            "8",
            *TINY,
            "--track",
            "tensorboard",
            "--out",
            "run",
        ],
        2,
        "--track",
        "tensorboard does not: no room for curves",
    )


# Several processes


def two(*words, **options):
    "The command in two processes."
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        str(free_port()),
        "-m",
        "ddpm_lit",
        *map(str, words),
    ]
    return subprocess.Popen(
        command,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ours(err):
    return [line for line in err.splitlines() if line.startswith("ddpm-lit")]


def test_no_flag_is_taken_for_one_of_the_launchers(capsys):
    """They read all words with argparse, which minds those that abbreviate two flags of
    its own, wherever they stand."""
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    for command in ("train", "resume"):
        assert main([command, "--help"]) == 0
        flags = sorted(set(re.findall(r"--[a-zA-Z][\w-]*", capsys.readouterr().out)))
        assert len(flags) > 5
        words = [
            "-m",
            "ddpm_lit",
            command,
            *(word for flag in flags for word in (flag, "1")),
        ]
        for parser in (launch_command_parser(), get_args_parser()):
            assert parser.parse_args(words).training_script_args == words[2:]


@pytest.mark.slow
def test_two_processes_train_as_one(capsys):
    art = drawings("art")
    train = [
        "train",
        art,
        "--image-size",
        "8",
        *TINY,
        "--dropout",
        "0",
        "--lr-decay",
        "constant",
        "--precision",
        "fp32",
    ]
    assert main([*train, "--out", "one"]) == 0
    process = two(*train, "--sample-every", "3", "--track", "tensorboard")
    out, err = process.communicate(timeout=300)
    assert (
        process.returncode == 0
        and out.startswith("runs/art: trained for 6 steps")
        and out.count("\n") == 1
        and ours(err) == []
    ), (out, err)
    # one folder, named by one process
    assert [p.name for p in Path("runs").iterdir()] == ["art"]
    assert [line["step"] for line in read_log("runs/art")] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in read_log("runs/art")] == pytest.approx(
        [line["loss"] for line in read_log("one")], rel=1e-4
    )
    assert {p.name for p in Path("one").iterdir()} | {"samples", "tensorboard"} == {
        p.name for p in Path("runs/art").iterdir()
    }
    one, both = (
        read_tensors(Path("one/weights.safetensors"))[0],
        read_tensors(Path("runs/art/weights.safetensors"))[0],
    )
    assert all(torch.allclose(one[name], both[name], atol=1e-4) for name in one)
    assert (
        json.loads(Path("runs/art/config.json").read_text())["made"]["processes"] == 2
    )
    # and on with two; then with one
    process = two("resume", "runs/art", "--steps", "8")
    out, err = process.communicate(timeout=300)
    assert (
        process.returncode == 0
        and "8 steps" in out
        and main(["resume", "runs/art", "--steps", "10", "--device", "cpu"]) == 0
    )
    assert [line["step"] for line in read_log("runs/art")] == list(range(1, 11))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_processes_stop_together(number):
    process = two(
        "train",
        drawings("art"),
        "--image-size",
        "8",
        *TINY,
        "--steps",
        "1000000",
        "--checkpoint-every",
        "1000000",
        "--out",
        "run",
    )
    try:
        until(lambda: len(read_log("run")) > 3)
        process.send_signal(number)
        out, err = process.communicate(timeout=100)
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    last = int(max(Path("run/checkpoints").iterdir()).stem)
    assert (
        last > 3
        and f"stopped at step {last} of 1000000; to continue: ddpm-lit resume run"
        in "".join(ours(err))
        and len(ours(err)) == 1
    ), err
    assert len(read_log("run")) == last and Path("run/summary.html").is_file()
    assert main(["resume", "run", "--steps", str(last + 1), "--device", "cpu"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, words",
    [
        ("train digits --out full", "--out full"),
        ("train nowhere", "'nowhere'"),
        ("train digits --batch-size 7", "--batch-size 2 processes"),
        ("resume nowhere", "'nowhere'"),
        ("sample digits", "one process"),
    ],
)
def test_two_processes_refuse_with_one_voice(line, words):
    Path("full").mkdir()
    Path("full/something").touch()
    words_, before = words.split(), files()
    process = two(
        *line.split(), *(TINY if line.startswith("train digits --out") else [])
    )
    out, err = process.communicate(timeout=100)
    assert (
        process.returncode
        and len(ours(err)) == 1
        and all(word in ours(err)[0] for word in words_)
    ), err
    assert files() == before


# Damage


def numbers_and_names(value, path=()):
    "The places in a JSON value, from the outside in."
    yield path
    for key, inner in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield from numbers_and_names(inner, (*path, key))


NONSENSE = [
    None,
    True,
    -1,
    0,
    3,
    2**31,
    2**63,
    10**30,
    -0.5,
    1e-300,
    1e308,
    float("nan"),
    "",
    "x",
    "../../x",
    "/etc",
    "a" * 100_000,
    [],
    {},
    [[]],
    {"a": 1},
    [0] * 50,
    "\x00",
]


def twisted(text: str, rng) -> str:
    "A JSON text with one place changed."
    value = json.loads(text)
    if rng.random() < 0.1:
        return '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}"
    places = [
        path
        for path in numbers_and_names(value)
        if path
        and not (len(path) > 1 and isinstance(path[-1], int) and rng.random() < 0.9)
    ]
    *outer, last = rng.choice(places)
    parent = value
    for key in outer:
        parent = parent[key]
    how = rng.choice(["replace", "replace", "replace", "delete", "add"])
    if how == "delete":
        del parent[last]
    elif how == "add" and isinstance(parent, dict):
        parent[rng.choice(["unknown", "__class__", ""])] = rng.choice(NONSENSE)
    else:
        parent[last] = rng.choice(NONSENSE)
    return json.dumps(value)


def damaged(path: Path, rng) -> None:
    "One file, damaged in one of many ways."
    data = bytearray(path.read_bytes())
    how = rng.choice(
        [
            "cut",
            "flip",
            "random",
            "empty",
            "folder",
            "link",
            "twist",
            "twist",
            "twist",
            "twist",
        ]
    )
    if how == "cut":
        del data[rng.randrange(len(data)) :]
    elif how == "flip":
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(min(len(data), rng.choice([50, 2000, len(data)])))] ^= (
                1 << rng.randrange(8)
            )
    elif how == "random":
        data[:] = rng.randbytes(rng.randrange(1, 2000))
    elif how == "empty":
        data.clear()
    elif how == "twist" and path.suffix == ".safetensors":
        n = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + n])
        if "facts" in header.get("__metadata__", {}) and rng.random() < 0.7:
            header["__metadata__"]["facts"] = twisted(
                header["__metadata__"]["facts"], rng
            )
        text = (
            json.dumps(header)
            if rng.random() < 0.5 and "__metadata__" in header
            else twisted(json.dumps(header), rng)
        ).encode()
        data[: 8 + n] = len(text).to_bytes(8, "little") + text
    elif how == "twist":
        lines = (
            data.decode().splitlines(keepends=True)
            if path.suffix == ".jsonl"
            else [data.decode()]
        )
        lines[rng.randrange(len(lines))] = twisted(lines[-1], rng) + "\n"
        data[:] = "".join(lines).encode()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to(rng.choice(["/dev/null", "/etc/passwd", "nowhere", "."]))
    else:
        path.write_bytes(data)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    "The smallest run there is."
    home = tmp_path_factory.mktemp("small")
    art = drawings(home / "art", 4, 4)
    tiny = (
        "--image-size 4 --T 20 --channels 4 --multipliers 1 --attention --blocks 1 "
        "--steps 4 --batch-size 4 --warmup 2 --checkpoint-every 2 --sample-every 0 "
        "--device cpu --precision fp32"
    )
    assert main(["train", art, "--out", str(home / "run"), *tiny.split()]) == 0
    return home


class Hangs(BaseException):
    pass


def hangs(number, frame):
    raise Hangs


def survives(small, here, seed, capsys):
    """The command meets a damaged run: it works or says in one sentence why not, soon,
    and writes nowhere else."""
    rng = random.Random(seed)
    home = here / f"{seed}/a/b"
    shutil.copytree(small, home)
    path = rng.choice(
        [
            home / "run" / name
            for name in (
                "config.json",
                "config.json",
                "schedule.json",
                "weights.safetensors",
                "log.jsonl",
            )
        ]
        + sorted((home / "run/checkpoints").iterdir())
    )
    damaged(path, rng)
    before = [
        name
        for name in files(here / str(seed))
        if not name.startswith(str(home / "run"))
    ]
    argv = (
        ["sample", home / "run", "--n", "2", "--steps", "2"]
        if seed % 3
        else ["resume", home / "run", "--steps", "5", "--device", "cpu"]
    )
    capsys.readouterr()
    old = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    try:
        status = main([str(word) for word in argv])
    finally:
        signal.alarm(0), signal.signal(signal.SIGALRM, old)
    err = capsys.readouterr().err
    *warned, said = err.splitlines() if status else [*err.splitlines(), ""]
    about = (
        f"seed {seed}: {argv[0]} with {path.relative_to(home)} damaged gave {status} "
        f"and {err[:500]}"
    )
    assert status in (0, 1, 2) and all(
        line.startswith("ddpm-lit: warning: ") for line in warned
    ), about
    assert (
        not status
        or said.startswith("ddpm-lit: ")
        and not said.startswith("ddpm-lit: unexpected")
        and len(said) < 2000
    ), about
    assert [
        name
        for name in files(here / str(seed))
        if not name.startswith(str(home / "run"))
    ] == before, about
    return status


def test_damaged_runs(small, here, capsys):
    assert {survives(small, here, seed, capsys) for seed in range(60)} >= {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_many_damaged_runs(small, here, capsys, part):
    for seed in range(1000 + 60 * part, 1060 + 60 * part):
        survives(small, here, seed, capsys)
