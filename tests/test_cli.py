"The command: round trips, seeds, and one sentence with the right exit status for every mistake."
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm_lit.cli import PRESETS, ScheduleConfig, explain, main, parse_train
from ddpm_lit.train import Trainer

TINY = "--T 20 --channels 8 --multipliers 1 --attention --blocks 1 --steps 6 --batch-size 8 --warmup 2 --checkpoint-every 4 --sample-every 0 --device cpu".split()
COMMAND = [sys.executable, "-m", "ddpm_lit.cli"]
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    "Every test in a folder of its own, on one thread: the fastest for networks this small."
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
    for i, image in enumerate(pixels): Image.fromarray(image).save(Path(folder, f"{i}.png"))
    return str(folder)


def files(folder="."): return sorted(str(p) for p in Path(folder).rglob("*"))


def refused(capsys, argv, status, *words):
    "The command answers `argv` with `status` and one line on stderr that holds all `words`, and writes nothing."
    before = files()
    capsys.readouterr()
    assert main([str(word) for word in argv]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("ddpm-lit: ") and err.count("\n") == 1 and "Traceback" not in err, (out, err)
    for word in words: assert str(word) in err, err
    assert files() == before


# Round trips


def test_a_run_folder_holds_what_the_help_promises(trained):
    assert {p.name for p in trained.iterdir()} == {
        "config.json", "schedule.json", "weights.safetensors", "checkpoints", "log.jsonl", "loss.png",
        "samples_ddpm.png", "samples_ddim.png", "samples.gif", "report.json"}
    assert [p.name for p in sorted((trained / "checkpoints").iterdir())] == ["00000004", "00000006"]
    wide, high = Image.open(trained / "samples_ddim.png").size
    assert (wide, high) == (8 * 66 - 2, (8 * 66 - 2) + 64 + 16)  # eight rows of eight, below a row of real images and a line
    with Image.open(trained / "samples.gif") as film: assert film.n_frames == 21  # noise, and all 20 steps
    assert not [p for p in trained.rglob("*") if p.name.startswith(".")]


def test_training_on_digits_prints_the_report(capsys):
    assert main(["train", "digits", "--num-classes", "10", *TINY]) == 0
    out = capsys.readouterr().out
    report = json.loads(Path("runs/digits/report.json").read_text())
    assert report["samples"] == 1000 and report["held_out"] == 450 and report["sure_real"] > 0.8
    for words in ("1000 samples", "judge more than 0.8 sure", "share of the rarest class", "distance to the nearest training digit"): assert words in out
    for label in "37": assert main(["sample", "runs/digits", "--n", "3", "--label", label, "--steps", "5", "--out", f"{label}.png"]) == 0
    assert Path("3.png").read_bytes() != Path("7.png").read_bytes()  # it has classes
    refused(capsys, ["sample", "runs/digits", "--label", "10"], 2, "--label", "0..9", "10")


def test_same_seed_same_bytes_and_no_batch_matters(run, capsys):
    common = ["sample", str(run), "--sampler", "ddpm", "--out"]
    for name, flags in {"a": "", "b": "", "c": "--batch 5", "d": "--seed 1"}.items():
        assert main([*common, f"{name}.png", "--n", "12", *flags.split()]) == 0
        assert main([*common, name, "--separate", "--n", "12", *flags.split()]) == 0
    assert main([*common, "e", "--separate", "--n", "20", "--batch", "7"]) == 0
    assert capsys.readouterr().out.split() == ["a.png", "a", "b.png", "b", "c.png", "c", "d.png", "d", "e"]
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes() != Path("d.png").read_bytes()
    pixels = {name: np.stack([np.asarray(Image.open(p), int) for p in sorted(Path(name).iterdir())]) for name in "abcde"}
    assert sorted(p.name for p in Path("a").iterdir()) == [f"{i:05d}.png" for i in range(12)]
    assert (pixels["a"] == pixels["b"]).all()
    assert abs(pixels["a"] - pixels["c"]).max() <= 1 and abs(pixels["a"] - pixels["e"][:12]).max() <= 1  # a batch may round otherwise
    assert abs(pixels["a"] - pixels["d"]).max() > 50
    assert len({image.tobytes() for image in pixels["a"]}) == 12  # no two images from one generator


def test_the_default_name_is_new_each_time(run, capsys):
    for name in ("ddim-5-seed0.png", "ddim-5-seed0-2.png"):
        assert main(["sample", str(run), "--n", "2", "--steps", "5"]) == 0
        assert capsys.readouterr().out == f"{run / 'samples' / name}\n" and (run / "samples" / name).is_file()


@pytest.mark.parametrize("flags", ["--sampler ddim --eta 1", "--sampler ddim --spacing quadratic --steps 7", "--sampler ddpm --variance beta --steps 3", "--columns 3 --steps 1"])
def test_the_samplers(run, flags):
    assert main(["sample", str(run), "--n", "3", "--steps", "5", *flags.split(), "--out", "x.png"]) == 0
    assert Image.open("x.png").size == (3 * 66 - 2, 64)


def test_a_flag_of_the_sampler_arrives(run):
    for name, flags in {"plain": "", "half": "--eta 0.5", "one": "--eta 1", "spacing": "--spacing quadratic", "steps": "--steps 6", "ddpm": "--sampler ddpm", "beta": "--sampler ddpm --variance beta"}.items():
        assert main(["sample", str(run), "--n", "3", "--steps", "5", *flags.split(), "--out", f"{name}.png"]) == 0
    pixels = {p.stem: np.asarray(Image.open(p), int) for p in Path(".").glob("*.png")}
    assert abs(pixels["one"] - pixels["ddpm"]).max() <= 1  # DDIM with eta = 1 is DDPM
    assert len({image.tobytes() for name, image in pixels.items() if name != "one"}) == 6


def test_a_folder_of_images(capsys):
    assert main(["train", drawings("art"), "--image-size", "8", *TINY]) == 0
    assert main(["sample", "runs/art", "--n", "2", "--steps", "3", "--out", "x.png"]) == 0
    with Image.open("x.png") as picture: assert picture.mode == "RGB"
    assert not Path("runs/art/report.json").exists()


def test_mnist(capsys):
    places = [os.environ.get("DDPM_LIT_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    found = next((p for p in places if p and Path(p, "MNIST", "raw").is_dir()), None)
    if found is None: pytest.skip("MNIST is neither in DDPM_LIT_DATA nor in ../shared/data, and tests fetch nothing")
    assert main(["train", "mnist", "--data", str(found), *TINY]) == 0
    assert main(["sample", "runs/mnist", "--n", "1", "--steps", "2", "--out", "x.png"]) == 0
    assert Image.open("x.png").size == (56, 56)


def test_resumed_is_uninterrupted_and_the_seed_decides(capsys):
    train = ["train", drawings("art"), "--image-size", "8", *TINY, "--lr-decay", "constant"]
    for name, flags in {"once": "", "again": "", "twice": "--steps 4", "other": "--seed 1"}.items(): assert main([*train, *flags.split()]) == 0
    assert main(["resume", "runs/art-3", "--steps", "6"]) == 0
    once, again, twice, other = (Path("runs", name) for name in ("art", "art-2", "art-3", "art-4"))
    for file in ("weights.safetensors", "samples_ddpm.png"):
        assert (once / file).read_bytes() == (again / file).read_bytes() == (twice / file).read_bytes() != (other / file).read_bytes()
    refused(capsys, ["resume", twice, "--steps", "5"], 2, "--steps", "6", "5")


# Flags, presets, help


def test_flags_replace_fields_of_the_preset_wherever_the_data_stand():
    for argv in (["mnist", "--lr", "0.5"], ["--lr", "0.5", "mnist"], ["--out", "digits", "--lr", "0.5", "mnist"]):
        args = parse_train(argv)
        assert (args.data, args.train.lr, args.unet, args.noise) == ("mnist", 0.5, PRESETS["mnist"].unet, PRESETS["mnist"].noise)
    assert parse_train(["some/folder"]).unet.in_channels == 3
    assert str(parse_train(["mnist", "--data", "x"]).data_dir) == str(parse_train(["mnist", "--data-dir", "x"]).data_dir) == "x"


def test_schedules_are_built_as_asked():
    assert ScheduleConfig("linear", 10, 0.1, 0.2).build().beta[[1, 10]].tolist() == pytest.approx([0.1, 0.2])
    assert len({ScheduleConfig(name, 10).build().alpha_bar[5].item() for name in ("linear", "scaled_linear", "cosine", "sigmoid")}) == 4


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    top = capsys.readouterr().out
    for word in ("train", "resume", "sample", "130"): assert word in top
    assert main(["train", "mnist", "--help"]) == 0
    out = " ".join(re.sub("[│|]", " ", capsys.readouterr().out).split())
    for words in ("--batch-size INT images in a step", f"(default: {PRESETS['mnist'].train.steps})", "--beta-end", "--image-size INT", "DATA"): assert words in out
    for command in ("sample", "resume"): assert main([command, "--help"]) == 0
    assert "RUN" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert re.fullmatch(r"ddpm-lit \d+\.\d+\.\d+\n", capsys.readouterr().out)


# Wrong use: 2


@pytest.mark.parametrize("line, words", [
    ("", "command train resume sample"),
    ("paint", "'paint' train resume sample"),
    ("train", "DATA digits mnist folder"),
    ("train digts", "'digts' digits mnist folder"),
    ("train none/such", "'none/such' digits mnist folder"),
    ("train empty", "empty .png"),
    ("train bare", "bare .png"),
    ("train file", "file digits mnist folder"),
    ("train digits --stesp 5", "--stesp --steps"),
    ("train digits 5", "5"),
    ("train digits --steps", "--steps value"),
    ("train digits --steps many", "--steps whole number 'many'"),
    ("train digits --steps 0", "--steps least 1 0"),
    ("train digits --lr fast", "--lr number 'fast'"),
    ("train digits --lr 2", "--lr (0, 1) 2"),
    ("train digits --param noise", "--param 'eps' 'x0' 'v' 'noise'"),
    ("train digits --channels 33", "--channels even 33"),
    ("train digits --num-classes few", "--num-classes INT 'few'"),
    ("train digits --multipliers a b", "--multipliers 'a' 'b'"),
    ("train digits --T 0", "--T 1 0"),
    ("train digits --schedule linear --beta-end 1.5", "--beta-end (0, 1) 1.5"),
    ("train digits --schedule linear --beta-start 0", "--beta-start (0, 1) 0"),
    ("train digits --schedule cosine --beta-end 0.5", "beta_end linear cosine"),
    ("train digits --device abacus", "--device 'abacus'"),
    ("train digits --out full", "--out full"),
    ("train digits --out file", "--out file"),
    ("train art --num-classes 3", "--num-classes labels"),
    ("sample", "RUN"),
    ("sample none/such", "'none/such' run folder"),
    ("resume none/such", "'none/such' run folder"),
])
def test_wrong_use(capsys, line, words):
    for folder in ("empty", "bare", "full"): Path(folder).mkdir()
    for file in ("file", "bare/notes.txt", "full/something"): Path(file).touch()
    drawings("art", 2)
    argv = line.split() + (TINY if "--out" in line or line.startswith("train art") else [])  # lest a refusal that fails trains for minutes
    refused(capsys, argv, 2, *words.split())


@pytest.mark.parametrize("flags, words", [
    ("--n 0", "--n least 1 0"),
    ("--batch 0", "--batch least 1 0"),
    ("--columns 0", "--columns least 1 0"),
    ("--seed -1", "--seed least 0 -1"),
    ("--steps 0", "--steps 1 0"),
    ("--steps 21", "--steps T = 20 21"),
    ("--sampler ddpm --steps 21", "--steps T = 20 21"),
    ("--eta 1.5", "--eta [0, 1] 1.5"),
    ("--sampler ddpm --eta 1", "eta ddim"),
    ("--variance beta", "variance ddpm"),
    ("--spacing wide", "--spacing 'trailing' 'wide'"),
    ("--label 3", "--label --num-classes"),
    ("--out x.bmp", "--out .png x.bmp"),
    ("--out taken.png", "--out taken.png --overwrite"),
    ("--out full --separate", "--out full --overwrite"),
])
def test_wrong_use_of_sample(capsys, run, flags, words):
    Path("full").mkdir()
    Path("full/something").touch()
    Path("taken.png").write_text("mine")
    refused(capsys, ["sample", run, *flags.split()], 2, *words.split())
    assert Path("taken.png").read_text() == "mine"


def test_overwrite_replaces_what_it_names_and_nothing_else(run):
    Path("full").mkdir()
    Path("full/letter.txt").write_text("mine")
    Path("taken.png").touch()
    flags = ["sample", str(run), "--n", "2", "--steps", "2", "--overwrite", "--out"]
    assert main([*flags, "taken.png"]) == main([*flags, "full", "--separate"]) == 0
    assert Image.open("taken.png").size == (130, 64) and files("full") == ["full/00000.png", "full/00001.png", "full/letter.txt"]


# Failures: 1


def test_a_truncated_image(capsys):
    drawings("art")
    Path("art/3.png").write_bytes(Path("art/3.png").read_bytes()[:100])
    refused(capsys, ["train", "art", *TINY], 1, "art/3.png")


@pytest.mark.parametrize("file, text", [("weights.safetensors", None), ("config.json", None), ("schedule.json", None), ("weights.safetensors", "x"), ("config.json", "{"), ("config.json", "{}")])
def test_a_run_with_a_file_missing_or_broken(capsys, run, file, text):
    (run / file).unlink()
    if text is not None: (run / file).write_text(text)
    refused(capsys, ["sample", run], 1, run, *([file] if text != "{}" else ["format"]))


def test_weights_that_do_not_fit_the_configuration(capsys, run):
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"channels": 8', '"channels": 16'))
    assert text != (run / "config.json").read_text()
    refused(capsys, ["sample", run], 1, "weights.safetensors", "fit")


def test_a_run_without_a_checkpoint_or_training(capsys, run):
    shutil.rmtree(run / "checkpoints")
    refused(capsys, ["resume", run], 1, run, "checkpoints")
    (run / "config.json").write_text((run / "config.json").read_text().replace('"train"', '"other"'))
    refused(capsys, ["resume", run], 1, run, "no training")


def test_an_output_that_cannot_be_written(capsys, run):
    Path("file").write_text("mine")  # tests may run as root, whom no permission stops: a file in the place of a folder does
    for argv in (["train", "digits", "--out", "file/run", *TINY], ["sample", run, "--out", "file/x.png"], ["sample", run, "--separate", "--out", "file/x"]):
        refused(capsys, argv, 1, "cannot write", "file")
    Path("runs").write_text("mine")
    refused(capsys, ["train", "digits", *TINY], 1, "cannot write", "runs")


@pytest.mark.parametrize("argv", [["train", "digits", "--out", "new", *TINY], ["sample", "run", "--out", "new.png"], ["sample", "run", "--separate", "--out", "new"]])
def test_a_full_disk(capsys, run, monkeypatch, argv):
    def full(descriptor): raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    refused(capsys, argv, 1, "cannot write", "No space left on device")


def test_a_disk_that_fills_while_it_writes(run):
    "The kernel itself refuses to let a file grow beyond 4 kB."
    before = files()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    done = subprocess.run([*COMMAND, "sample", "run", "--n", "64", "--out", "new.png"], env=ENV, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "new.png" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert files() == before


def test_a_loss_that_is_not_finite(capsys, monkeypatch):
    def advance(trainer): raise FloatingPointError("the loss of step 1 is nan")
    monkeypatch.setattr(Trainer, "_advance", advance)
    assert main(["train", "digits", "--out", "run", *TINY]) == 1
    assert capsys.readouterr().err == "ddpm-lit: the loss of step 1 is nan\n"
    assert [p.name for p in Path("run/checkpoints").iterdir()] == ["00000000"]


def test_unforeseen_errors_are_one_sentence_too(capsys, monkeypatch):
    monkeypatch.setattr("ddpm_lit.cli.load_images", lambda *args: {}["surprise"])
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
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # a test that runs in the background inherits deafness
    command = [*COMMAND, "train", "digits", *TINY, "--steps", "100000", "--checkpoint-every", "100000", "--out", "run"]
    process = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    try:
        until(lambda: Path("run/log.jsonl").exists())
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
    finally: process.kill()
    assert process.returncode == 128 + number and "Traceback" not in err
    assert "ddpm-lit resume run" in err.splitlines()[-1], err
    last = max(Path("run/checkpoints").iterdir()).name
    assert int(last) > 0 and f"step {int(last)} of 100000" in err
    lines = Path("run/log.jsonl").read_text().splitlines()
    assert len(lines) == int(last)  # no step is lost, none is counted twice
    assert main(["resume", "run", "--steps", str(int(last) + 2), "--device", "cpu"]) == 0
    assert len(Path("run/log.jsonl").read_text().splitlines()) == int(last) + 2
    assert Path("run/samples.gif").is_file()


def test_ctrl_c_while_sampling_leaves_nothing(run):
    before = files()
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen([*COMMAND, "sample", "run", "--n", "1000000", "--separate", "--out", "new"], env=ENV, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    try:
        until(lambda: list(Path(".").glob(".new.*/00010.png")))
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=300)[1]
    finally: process.kill()
    assert process.returncode == 130 and err == "ddpm-lit: stopped\n"
    assert files() == before


def test_a_reader_that_goes_away():
    script = f"{sys.executable} -m ddpm_lit.cli train --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], env=ENV, capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.strip() in ("0", "141"), done


def test_importing_the_library_imports_neither_the_command_nor_its_tools():
    script = "import sys, ddpm_lit; print([m for m in ('tyro', 'matplotlib', 'sklearn', 'PIL', 'torchvision', 'accelerate', 'ddpm_lit.cli') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], env=ENV, capture_output=True, text=True).stdout == "[]\n"
