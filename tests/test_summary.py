"""What people watch: progress where it can be shown, curves for others, and one page
that is true, whole and harmless, whatever the folder holds."""

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import xml.etree.ElementTree as xml
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpm_lit import UNet, UNetConfig, V, cosine_schedule
from ddpm_lit.command.page import average_width, averaged, column, run_page
from ddpm_lit.command.page import save_loss, show
from ddpm_lit.command.progress import Trackers, progress, trackers, watch
from ddpm_lit.runs import Run, RunFacts, append_log, read_log
from ddpm_lit.configs import TrainConfig
from ddpm_lit.train import glimpse

VOID = {"meta", "img"}
ENV = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}


def record(step: int, loss: float = 0.5, **values):
    return SimpleNamespace(
        step=step,
        **{
            "lr": 1e-3,
            "loss": loss,
            "grad_norm": 0.5,
            "images_per_second": 100.0,
            "seconds": 0.08 * step,
            "waited": 0.0,
        }
        | values,
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    "A run with all that a run can have. Of step n the loss is 1/n."
    folder = tmp_path_factory.mktemp("runs") / "small"
    torch.manual_seed(0)
    config = TrainConfig(steps=300, batch_size=8)
    run = Run(
        UNet(UNetConfig(8, 1, 8, (1,), 1, (), dropout=0.0, num_classes=10)).eval(),
        cosine_schedule(20),
        V,
        (-1, 1),
        RunFacts(train=config),
    )
    for step in range(1, 301):
        append_log(folder, record(step, 1 / step))
    Run(
        run.model,
        run.schedule,
        V,
        (-1, 1),
        RunFacts(data="digits", train=config, step=300),
    ).save(folder)
    for step in (50, 100, 1000):
        glimpse(run, folder, step)
    save_loss(folder)
    show(run, folder, torch.zeros(8, 1, 8, 8))
    (folder / "report.json").write_text(
        json.dumps({"samples": 1000, "share_sure": 0.931})
    )
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    "A copy of it, to spoil."
    return Path(shutil.copytree(finished, tmp_path / "small"))


class Page(HTMLParser):
    "A page as a browser reads it; every tag must be closed in its turn."

    def __init__(self, path: Path):
        super().__init__()
        self.open, self.tags, self.words, self.pictures, self.outside, self.heads = (
            [],
            [],
            [],
            [],
            [],
            [],
        )
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == ["html"] or not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), name
            if name in ("src", "href") and not value.startswith("#"):
                (
                    self.pictures
                    if value.startswith(
                        ("data:image/png;base64,", "data:image/gif;base64,")
                    )
                    else self.outside
                ).append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())
        if self.open and self.open[-1] in ("h2", "h3"):
            self.heads.append(data)

    def after(self, word: str) -> str:
        "The words that follow a word: the value of a figure or of a row."
        return next(w for w in self.words[self.words.index(word) + 1 :] if w)


# The page


def test_the_page_says_what_the_run_was(folder):
    assert run_page(folder) == folder / "summary.html"
    page = Page(folder / "summary.html")
    for name, value in {
        "steps": "300",
        "images seen": "2.4 k",
        "time": "24 s",
        "images/s": "100",
        "samples": "1000",
        "share sure": "0.931",
        "batch size": "8",
        "num classes": "10",
        "T": "20",
    }.items():
        assert page.after(name) == value, name
    assert (
        page.after("loss, last 60")
        == f"{np.mean([1 / n for n in range(241, 301)]):.4g}"
    )
    assert (
        page.after("parameters").endswith(" k")
        and "complete" in page.source
        and "trained on digits" in page.source
    )
    assert page.heads[:6] == [
        "Training",
        "Samples",
        "Over the training",
        "Report",
        "Next steps",
        "Settings",
    ]
    assert [p[:15] for p in page.pictures] == ["data:image/png;"] * 2 + [
        "data:image/gif;"
    ] + ["data:image/png;"] * 3
    assert [w for w in page.words if w.startswith("step ")] == [
        "step 50",
        "step 100",
        "step 1,000",
    ]
    commands = page.after("Next steps")
    for words in (
        f"ddpm-lit sample {folder} --n 64",
        f"ddpm-lit sample {folder} --class 0 1 2",
        f"ddpm-lit resume {folder} --steps 600",
    ):
        assert words in commands


def test_the_page_needs_nothing_from_elsewhere(folder):
    page = Page(run_page(folder))
    assert page.outside == [] and not {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
    } & set(page.tags)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", page.source)


def test_the_curves_are_whole_drawings_in_the_colours_of_the_page(folder):
    source = run_page(folder).read_text(encoding="utf-8")
    opened = r'<figure class="(\w+)" role="img" aria-label="(.*?)">'
    found = re.findall(rf"{opened}(<svg.*?</svg>)\s*</figure>", source, re.S)
    kinds, titles, drawings = zip(*found)
    assert titles == (
        "loss, wide",
        "loss, narrow",
        "learning rate",
        "gradient norm",
        "images per second",
    )
    assert kinds == ("wide", "narrow", "small", "small", "small")
    for drawing in drawings:
        assert "viewBox" in xml.fromstring(drawing).attrib
    # each is as wide as the page lets it be
    assert re.search(r"svg \{[^}]*width: 100%; height: auto", source)
    # at night they would not be seen
    for ours in ("fbfaf7", "33322f", "e4e2dc", "2a6fb0"):
        assert f"#{ours}" not in source.split("</style>", 1)[1]
    ids = re.findall(r'id="([^"]+)"', source)
    referred = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', source))
    assert referred <= set(ids)
    clips = re.findall(r'<clipPath id="([^"]+)"', source)
    # or one drawing would be cut to the frame of another
    assert len(set(clips)) == len(clips)


def test_the_same_folder_gives_the_same_page(folder):
    first = run_page(folder).read_bytes()
    assert run_page(folder).read_bytes() == first and not list(folder.glob(".*"))


@pytest.mark.parametrize(
    "gone, head",
    [
        ("samples_ddpm.png", None),
        ("samples.gif", None),
        ("samples", "Over the training"),
        ("report.json", "Report"),
        ("log.jsonl", "Training"),
        ("weights.safetensors", "Next steps"),
        ("schedule.json", None),
        ("config.json", None),
    ],
)
def test_what_is_missing_is_left_out(finished, folder, gone, head):
    whole = Page(run_page(finished))
    (shutil.rmtree if gone == "samples" else os.unlink)(folder / gone)
    page = Page(run_page(folder))
    assert (
        page.source != whole.source
        and [h for h in whole.heads[:6] if h != head]
        == page.heads[: len([h for h in whole.heads[:6] if h != head])]
    )


def test_an_empty_folder_has_a_page_and_no_folder_has_none(tmp_path):
    assert Page(run_page(tmp_path)).heads == []
    with pytest.raises(ValueError, match="folder must be a run folder"):
        run_page(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="folder must be a run folder"):
        run_page(tmp_path / "file")


def test_a_training_that_was_stopped_says_so(folder):
    lines = (folder / "log.jsonl").read_text().splitlines(keepends=True)
    (folder / "log.jsonl").write_text("".join(lines[:120]))
    page = Page(run_page(folder))
    assert (
        "stopped at step 120 of 300" in page.source
        and f"ddpm-lit resume {folder}\n" in page.after("Next steps") + "\n"
    )


FIELDS = ["lr", "grad_norm", "seconds", "images_per_second", "waited"]


def spoil(folder, fields, value):
    """Put `value` in the place of `fields` in each line of the log, and begin one line
    more."""
    lines = [
        json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()
    ]
    for line in lines:
        for field in fields:
            line.pop(field) if value == "absent" else line.__setitem__(field, value)
    (folder / "log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 30'
    )


@pytest.mark.parametrize("field", FIELDS)
def test_a_log_without_a_field_loses_only_its_curve(folder, field):
    spoil(folder, [field], "absent")
    page = Page(run_page(folder))
    assert page.after("steps") == "300" and page.source.count("<svg") == 5 - (
        field in ("lr", "grad_norm")
    )
    assert ("time" in page.words) == (field != "seconds")


@pytest.mark.parametrize(
    "value",
    ["absent", None, "fast", 1e400, 10**400, [1]],
    ids=["absent", "null", "text", "infinite", "huge", "list"],
)
def test_a_log_of_nonsense_still_has_its_losses(folder, value):
    spoil(folder, FIELDS, value)
    page = Page(run_page(folder))
    assert (
        page.after("steps") == "300"
        and page.source.count("<svg") == 2
        and not {"time", "images/s"} & set(page.words)
    )


HOSTILE = "<script>alert('1')</script>\"'&<img src=x onerror=y>"


def test_every_word_from_a_file_is_escaped(folder):
    config = json.loads((folder / "config.json").read_text())
    spoilt = {
        "data": HOSTILE,
        HOSTILE: HOSTILE,
        "attributes": [HOSTILE],
        "train": config["train"] | {HOSTILE: HOSTILE, "lr": HOSTILE},
        "other" + HOSTILE: {HOSTILE: [HOSTILE]},
    }
    (folder / "config.json").write_text(json.dumps(config | spoilt))
    (folder / "report.json").write_text(
        json.dumps({HOSTILE: HOSTILE, "nested": {HOSTILE: 1}})
    )
    page = Page(run_page(folder))
    assert "script" not in page.tags and page.outside == [] and HOSTILE in page.words
    odd = folder.with_name("a <b> 'c' & \"d\"")
    folder.rename(odd)
    assert Page(run_page(odd)).words.count(odd.name) == 2  # its title and its headline


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        "{",
        "null",
        '{"train": 3, "unet": [], "data": 7}',
        '{"train": {"steps": "many", "batch_size": -1}}',
        '{"train": {"steps": 1e999, "batch_size": 1e308}}',
        "[" * 100_000,
        '{"a": ' + "[" * 900 + "]" * 900 + "}",
        '{"format": 1' + "".join(f', "k{i}": {i}' for i in range(5000)) + "}",
    ],
)
def test_any_configuration_gives_a_page(folder, config):
    (folder / "config.json").write_text(config)
    (folder / "schedule.json").write_text(config)
    page = Page(run_page(folder))
    assert page.heads[0] == "Training" and len(page.source) < 2_000_000


def test_only_pictures_are_pictures(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("the password")
    for name in ("samples_ddim.png", "samples/step-0000050.png"):
        (folder / name).unlink(), (folder / name).symlink_to(secret)
    (folder / "samples" / "step-x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    page = Page(run_page(folder))
    assert len(page.pictures) == 4 and "dGhlIHBhc3N3b3Jk" not in page.source


def test_a_long_training_has_a_page_of_the_same_size(folder):
    small = run_page(folder).stat().st_size
    rng = np.random.default_rng(0)
    lines = [
        json.dumps(
            dict(
                step=n,
                loss=float(x),
                lr=1e-4,
                grad_norm=float(x),
                images_per_second=9.0,
                seconds=float(n),
                waited=0.0,
            )
        )
        + "\n"
        for n, x in enumerate(rng.uniform(0.5, 1.5, 50_000), 1)
    ]
    (folder / "log.jsonl").write_text("".join(lines))
    assert run_page(folder).stat().st_size < small + 400_000


# Curves


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.integers(1, 60))
def test_the_average_is_the_mean_of_neighbours(values, width):
    values, width = np.array(values), min(width, len(values))
    means = [values[i : i + width].mean() for i in range(len(values) - width + 1)]
    assert np.allclose(averaged(values, width), means, atol=1e-9)


def test_the_width_of_the_average():
    assert [average_width(n) for n in (0, 1, 4, 10, 499, 500, 10**6)] == [
        1,
        1,
        1,
        2,
        99,
        100,
        100,
    ]


def test_a_column_holds_the_lines_that_have_it():
    log = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": None},
        {"step": 3},
        {"step": 4, "loss": float("nan")},
        {"step": 5, "loss": True},
        {"step": 6, "loss": 1},
    ]
    steps, values = column(log, "loss")
    assert steps.tolist() == [1, 6] and values.tolist() == [2, 1]
    assert column([], "loss")[0].shape == (0,)


# Progress


def on_terminal(code: str) -> str:
    "What Python says on a terminal of a hundred columns."
    main_end, other_end = pty.openpty()
    # 24 rows, 100 columns
    fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=other_end,
    )
    process.wait(timeout=300)
    os.close(other_end)
    said = b""
    try:
        while part := os.read(main_end, 100_000):
            said += part
    except OSError:
        pass
    os.close(main_end)
    assert process.returncode == 0, said
    return said.decode()


LOOP = (
    "import time\nfrom ddpm_lit.command.progress import watch\nfor n in "
    "watch(range(3, 10), "
    "'counting', 10, 3, lambda n: f'at {n}', shown=%s): time.sleep(0.05)"
)


def test_a_bar_on_a_terminal_and_none_for_the_other_processes():
    said = on_terminal(LOOP % True)
    assert "counting" in said and "10/10" in said and "at " in said
    assert on_terminal(LOOP % False) == ""


def test_a_line_now_and_then_where_there_is_no_terminal(monkeypatch, capsys):
    now = iter(range(0, 10_000, 20))
    monkeypatch.setattr(
        "ddpm_lit.command.progress.time", SimpleNamespace(monotonic=lambda: next(now))
    )
    assert list(watch("abcdef", "spelling", 6, note=lambda x: f"at {x}, ")) == list(
        "abcdef"
    )
    assert capsys.readouterr().err.splitlines() == [
        f"spelling: step {n} of 6, at {x}, {20 * (6 - n)} s left"
        for n, x in ((2, "b"), (4, "d"), (6, "f"))
    ]


def test_a_loop_that_fails_is_not_hidden():
    with pytest.raises(KeyError), progress("failing", 3) as tick:
        tick()
        raise KeyError


# Trackers


def test_no_tracker_is_needed(tmp_path):
    none = trackers((), tmp_path, {})
    (
        none.log(record(1)),
        none.images("samples", torch.zeros(4, 1, 8, 8), 1),
        none.close(),
    )
    assert none.started == () and not list(tmp_path.iterdir())


def test_unknown_trackers_are_refused(tmp_path):
    with pytest.raises(
        ValueError,
        match="track must name trackers out of tensorboard, wandb, got 'tensorbord'",
    ):
        trackers(["tensorbord"], tmp_path, {})


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_missing_package_is_named_with_its_remedy(tmp_path):
    with pytest.raises(
        ValueError,
        match=(
            "track must name trackers that are installed, and wandb is not: pip "
            "install wandb"
        ),
    ):
        trackers(["wandb"], tmp_path, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
def test_tensorboard_holds_what_the_log_holds(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = trackers(
        ["tensorboard", "tensorboard"],
        tmp_path,
        {"train": {"lr": 0.001, "grad_clip": None}, "data": "digits"},
    )
    assert isinstance(first, Trackers) and len(first.started) == 1
    for step in range(1, 6):
        (
            first.log(
                record(step, 1 / step, grad_norm=float("nan") if step == 2 else 0.5)
            ),
            append_log(tmp_path, record(step, 1 / step)),
        )
    first.images("samples", torch.zeros(4, 3, 8, 8), 5)
    first.close()
    # resumed from a checkpoint at 3
    again = trackers(["tensorboard"], tmp_path, {}, step=3)
    for step in range(4, 7):
        again.log(record(step, 2.0))
    again.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [(e.step, e.value) for e in events.Scalars("loss")]
    assert losses == [(n, pytest.approx(1 / n)) for n in (1, 2, 3)] + [
        (n, 2.0) for n in (4, 5, 6)
    ]
    assert [line["loss"] for line in read_log(tmp_path)][:3] == [
        pytest.approx(x) for _, x in losses[:3]
    ]
    for name in ("lr", "grad_norm", "images_per_second", "waited"):
        assert len(events.Scalars(name)) == 6
    assert (
        b"digits" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    )
