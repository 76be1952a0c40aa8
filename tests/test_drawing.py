"""What a run draws: each image depends on its number alone, folders can be completed,
memory is bounded, pictures come back."""

import gc
import json
import os
import random
import signal
import time
import weakref
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddpm_lit import DDIM, DDPM, EPS, RunFacts, TrainConfig, UNet, UNetConfig, V
from ddpm_lit import cosine_schedule, ddim_encode
from ddpm_lit import linear_schedule, load_images, sample, sample_steps, save_image
from ddpm_lit.folders import claim, draw_folder, fingerprint, missing
from ddpm_lit.folders import read_settings, sampling_settings
from ddpm_lit.generate import DrawConfig, draw_frames, draw_pixels, encode_decode
from ddpm_lit.generate import inpaintings, interpolation, optimized, read_image
from ddpm_lit.generate import read_mask, save_trajectories, save_trajectories_gif
from ddpm_lit.generate import trajectories
from ddpm_lit.images import to_float, to_uint8
from ddpm_lit.solvers import DPMSolver
from ddpm_lit.numbered import numbered_noise, placed
from ddpm_lit.runs import Run, check_labels


def made(
    classes=None, drop=0.1, T=20, channels=1, seed=0, clip=(-1, 1), **config
) -> Run:
    """A run with a network whose weights are all random, so that its answers depend on
    everything."""
    torch.manual_seed(seed)
    net = (
        UNet(
            UNetConfig(
                8, channels, 8, (1,), 1, (), dropout=0.0, num_classes=classes, **config
            )
        )
        .eval()
        .requires_grad_(False)
    )
    for p in net.parameters():
        p.add_(0.1 * torch.randn_like(p))
    return Run(
        net,
        cosine_schedule(T),
        V,
        clip,
        RunFacts(train=None if drop is None else TrainConfig(label_drop=drop)),
    )


PLAIN, TEN = made(), made(10)
HALF = torch.zeros(1, 8, 8), torch.arange(64).reshape(1, 1, 8, 8) < 32
SAMPLERS = [DDIM(5), DDIM(5, eta=0.7), DDPM(steps=5), DPMSolver(5)]


def levels(batches):
    return torch.cat([to_uint8(x) for x in batches]).int()


def how(sampler, *args, **options):
    return DrawConfig(sampler, *args, **options)


def largest(a, b):
    return (a.int() - b.int()).abs().max().item()


# Numbers


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_an_image_depends_on_its_number_alone(sampler):
    whole = levels(PLAIN.draw_batches(12, sampler))
    assert (
        whole.shape == (12, 1, 8, 8) and len({x.numpy().tobytes() for x in whole}) == 12
    )
    for options in (dict(n=12, batch=5), dict(n=12, batch=1), dict(n=20, batch=7)):
        assert (
            largest(levels(PLAIN.draw_batches(sampler=sampler, **options))[:12], whole)
            <= 1
        )
    assert largest(levels(PLAIN.draw_batches(4, sampler, first=8)), whole[8:]) <= 1
    assert largest(levels(PLAIN.draw_batches(12, sampler, 1)), whole) > 50


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_and_on_its_label(guidance):
    sampler, labels = DDPM(steps=5), (3, 8, 1)
    whole = levels(TEN.draw_batches(9, sampler, labels=labels, guidance=guidance))
    for batch in (1, 2, 4):
        assert (
            largest(
                levels(
                    TEN.draw_batches(
                        9, sampler, batch=batch, labels=labels, guidance=guidance
                    )
                ),
                whole,
            )
            <= 1
        )
    assert (
        largest(
            levels(
                TEN.draw_batches(5, sampler, first=4, labels=labels, guidance=guidance)
            ),
            whole[4:],
        )
        <= 1
    )
    threes = levels(TEN.draw_batches(9, sampler, labels=3, guidance=guidance))
    assert largest(threes[::3], whole[::3]) <= 1
    other = largest(threes[1::3], whole[1::3])
    assert (other > 1) == (guidance != 0)  # with guidance 0 the label has no effect
    # and no label is the null
    if guidance == 0:
        assert largest(whole, levels(TEN.draw_batches(9, sampler))) <= 1


def test_noise_of_a_number():
    xT, own = numbered_noise(PLAIN.shape, [5, 2, 9], seed=4)
    again, _ = numbered_noise(PLAIN.shape, [9, 5], seed=4)
    assert torch.equal(xT[[2, 0]], again) and len(own) == 3 and xT.shape == (3, 1, 8, 8)
    # seeds do not overlap
    assert not torch.equal(
        numbered_noise(PLAIN.shape, [1], seed=0)[0],
        numbered_noise(PLAIN.shape, [0], seed=1)[0],
    )


def test_only_one_batch_is_alive():
    counts = {}
    for n in (10, 100):
        seen, most = [], 0
        for x in PLAIN.draw_batches(n, DDIM(2), batch=5):
            seen.append(weakref.ref(x))
            del x
            most = max(most, sum(r() is not None for r in seen))
        gc.collect()
        assert most == 0 and len(seen) == n // 5
        counts[n] = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
    assert counts[100] <= counts[10]  # fewer: what an earlier test left is gone


@pytest.mark.parametrize(
    "work",
    [
        lambda n, config: draw_pixels(PLAIN, config, n),
        lambda n, config: trajectories(PLAIN, config, n, frames=2),
        lambda n, config: interpolation(PLAIN, config, 0, 1, n),
        lambda n, config: inpaintings(PLAIN, config, *HALF, n, resamples=1),
    ],
    ids=["draw_pixels", "trajectories", "interpolation", "inpaintings"],
)
def test_only_one_batch_is_ever_in_floats(work):
    """When a batch begins, the images of the earlier ones are gone, but for one that a
    loop's variable may still name."""
    seen, alive = [], []

    def watch(steps):
        alive.append(sum(r() is not None for r in seen))
        for step in steps:
            seen.append(weakref.ref(step.x))
            yield step

    pixels = work(40, how(DDIM(2), batch=5, watch=watch))
    assert pixels.dtype == torch.uint8 and len(pixels) == 40
    assert len(alive) == 8 and max(alive) <= 1 and len(seen) == 16


def test_collected_images_take_a_byte_each():
    pixels = draw_pixels(PLAIN, how(DDIM(2), batch=3), 7)
    assert pixels.dtype == torch.uint8 and pixels.shape == (7, 1, 8, 8)
    assert torch.equal(pixels, to_uint8(PLAIN.draw(7, DDIM(2), batch=3)))
    assert largest(draw_pixels(PLAIN, how(DDIM(2)), 3, first=4), pixels[4:]) <= 1
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(every)), every)


# Labels


@pytest.mark.parametrize(
    "run, labels, guidance, words",
    [
        (PLAIN, 3, 1.0, "labels left out num_classes 3"),
        (PLAIN, [], 1.0, "labels left out"),
        (PLAIN, None, 2.0, "guidance 1 labels 2"),
        (TEN, 10, 1.0, "labels 0..9 10"),
        (TEN, [1, -1], 1.0, "labels 0..9 -1"),
        (TEN, [], 1.0, "labels none"),
        (TEN, 1.5, 1.0, "labels whole 1.5"),
        (TEN, None, 2.0, "guidance 1 2"),
        (TEN, 3, float("nan"), "guidance finite"),
        (made(10, drop=0), None, 1.0, "labels label_drop"),
        (made(10, drop=0), 3, 2.0, "guidance 1 label_drop 2"),
        (made(context_dim=4, drop=0), None, 1.0, "labels label_drop"),
    ],
)
def test_labels_that_are_refused(run, labels, guidance, words):
    for call in (
        lambda: check_labels(run, labels, guidance),
        lambda: run.draw_batches(sampler=DDIM(2), labels=labels, guidance=guidance),
    ):
        with pytest.raises(ValueError) as refusal:
            call()
        for word in words.split():
            assert word in str(refusal.value)


def test_labels_that_are_taken():
    assert check_labels(PLAIN, None) is check_labels(TEN, None) is None
    assert check_labels(TEN, torch.tensor([3, 1])) == (3, 1) and check_labels(
        TEN, torch.tensor(3)
    ) == (3,)
    assert (
        check_labels(TEN, 3) == (3,)
        and check_labels(TEN, range(3), 2.0) == (0, 1, 2)
        and check_labels(made(10, drop=0), [4], 1.0) == (4,)
    )
    unknown = made(10, drop=None)  # is not "never dropped"
    assert unknown.null_trained is None and check_labels(unknown, None) is None
    assert check_labels(unknown, 3, 2.0) == (3,)
    for run in (PLAIN, TEN, made(context_dim=4)):
        assert levels(run.draw_batches(2, DDIM(2))).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: PLAIN.draw_batches(0, DDIM(2)), "n least 1 0"),
        (lambda: PLAIN.draw_batches(sampler=DDIM(2), batch=0), "batch least 1 0"),
        (lambda: PLAIN.draw_batches(sampler=DDIM(2), first=-1), "first least 0 -1"),
        (lambda: PLAIN.draw_batches(sampler=DDIM(21)), "steps T = 20 21"),
        (lambda: trajectories(PLAIN, how(DDIM(2)), frames=0), "frames least 1 0"),
        (lambda: draw_frames(PLAIN, how(DDIM(2)), frames=0), "frames least 1 0"),
        (lambda: interpolation(PLAIN, how(DDIM(2)), 0, 1, 1), "n least 2 1"),
        (lambda: interpolation(PLAIN, how(DDPM(steps=2)), 0, 1), "sampler noise DDPM"),
        (lambda: interpolation(PLAIN, how(DDIM(2, eta=0.5)), 0, 1), "sampler noise"),
        (
            lambda: interpolation(TEN, how(DDIM(2), labels=[1, 2]), 0, 1),
            "labels one class 2",
        ),
        (lambda: interpolation(PLAIN, how(DDIM(2)), -1, 1), "image least 0 -1"),
        (
            lambda: interpolation(PLAIN, how(DDIM(2)), 0, torch.zeros(1, 8, 9)),
            "x0 shape (1, 8, 9)",
        ),
        (
            lambda: interpolation(PLAIN, how(DDIM(2)), 0, torch.full((1, 8, 8), 3.0)),
            "x0 [-1, 1] 3",
        ),
        (
            lambda: encode_decode(PLAIN, how(DDPM(steps=2)), torch.zeros(1, 1, 8, 8)),
            "sampler noise",
        ),
        (
            lambda: encode_decode(PLAIN, how(DDIM(2)), torch.zeros(1, 3, 8, 8)),
            "x0 shape (1, 3, 8, 8)",
        ),
        (
            lambda: inpaintings(
                PLAIN,
                how(DDIM(2)),
                torch.zeros(3, 8, 8),
                torch.ones(1, 1, 8, 8, dtype=torch.bool),
            ),
            "x0 shape",
        ),
        (lambda: draw_pixels(PLAIN, how(DDIM(2)), 0), "n least 1 0"),
        (lambda: draw_pixels(PLAIN, how(DDIM(2)), first=-1), "first least 0 -1"),
        (lambda: draw_pixels(PLAIN, how(DDIM(21))), "steps T = 20 21"),
        (lambda: trajectories(PLAIN, how(DDIM(2)), 0), "n least 1 0"),
        (lambda: inpaintings(PLAIN, how(DDIM(2)), *HALF, 0), "n least 1 0"),
        (lambda: interpolation(PLAIN, how(DDIM(2), batch=0), 0, 1), "batch least 1 0"),
    ],
)
def test_what_is_refused_at_once(call, words):
    with pytest.raises(ValueError) as refusal:
        call()
    for word in words.split():
        assert word in str(refusal.value)


# Folders


def whole(folder) -> dict[str, bytes]:
    "Every file that does not begin with a dot, each seen to be whole."
    found = {
        p.name: p.read_bytes()
        for p in Path(folder).iterdir()
        if not p.name.startswith(".")
    }
    for name in found:
        if name == "sampling.json":
            json.loads(found[name])
        else:
            with Image.open(Path(folder, name)) as image:
                image.load()
                assert image.size == (8, 8)
    return found


def fill(folder, n=20, run=PLAIN, sampler=DDIM(2), overwrite=False, **options):
    files = draw_folder(run, how(sampler, **options), folder, n, overwrite)
    return [p.name for p in files]


def test_a_folder_is_completed_with_what_is_missing(tmp_path):
    first = [
        p.name
        for p in islice(
            draw_folder(PLAIN, how(DDIM(2), batch=4), tmp_path / "a", 20), 7
        )
    ]
    assert first == [f"{i:05d}.png" for i in range(7)] and missing(
        tmp_path / "a", 20
    ) == list(range(7, 20))
    (tmp_path / "a" / "00003.png").unlink()
    assert fill(tmp_path / "a") == [
        "00003.png",
        *(f"{i:05d}.png" for i in range(7, 20)),
    ]
    assert fill(tmp_path / "a") == fill(tmp_path / "a", 5) == []
    fill(tmp_path / "b", 10, batch=3)
    assert fill(tmp_path / "b", batch=1) == [f"{i:05d}.png" for i in range(10, 20)]
    assert (
        whole(tmp_path / "a") == whole(tmp_path / "b")
        and len(whole(tmp_path / "a")) == 21
    )
    images = levels(PLAIN.draw_batches(20, DDIM(2)))
    assert largest(load_images(tmp_path / "a", channels=1).images, images) <= 1


@pytest.mark.parametrize(
    "options, name",
    [
        (dict(sampler=DDIM(3)), "steps"),
        (dict(sampler=DDIM(2, eta=0.5)), "eta"),
        (dict(sampler=DDIM(2, spacing="leading")), "spacing"),
        (dict(sampler=DDIM(None, timesteps=(9, 4))), "steps"),
        (dict(sampler=DPMSolver(2)), "sampler"),
        (dict(seed=1), "seed"),
        (dict(labels=[1, 2]), "labels"),
        (dict(labels=1, guidance=2.0), "guidance"),
        (dict(run=made(10, seed=1)), "model"),
        (dict(run=made(10, clip=None)), "model"),
        (dict(run=made(10, T=30)), "model"),
    ],
)
def test_a_folder_with_other_settings_is_refused_or_replaced(tmp_path, options, name):
    base = dict(run=TEN, labels=1) if name == "guidance" else dict(run=TEN)
    fill(tmp_path, 4, **base)
    (tmp_path / "letter.txt").write_text("mine")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=rf"^(the )?{name} must be .*overwrite"):
        fill(tmp_path, 2, **{"run": TEN, **options})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    fill(tmp_path, 2, **{**base, **options}, overwrite=True)
    # no image of the other kind is left
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "00000.png",
        "00001.png",
        "letter.txt",
        "sampling.json",
    ]
    fresh = tmp_path / "fresh"
    fill(fresh, 2, **{**base, **options})
    assert all(
        (fresh / name).read_bytes() == (tmp_path / name).read_bytes()
        for name in ("00000.png", "00001.png", "sampling.json")
    )


def test_what_decides_the_images_and_what_does_not(tmp_path):
    settings = sampling_settings(TEN, how(DDIM(2), 3, 5, 1.5))
    assert settings == {
        "format": 1,
        "model": fingerprint(TEN),
        "sampler": "DDIM",
        "steps": 2,
        "eta": 0.0,
        "spacing": "trailing",
        "timesteps": None,
        "quad_end": 1.0,
        "seed": 3,
        "labels": [5],
        "guidance": 1.5,
    }
    fill(tmp_path, 2, run=TEN, seed=3, labels=5, guidance=1.5)
    assert read_settings(tmp_path) == settings
    assert fill(tmp_path, 3, run=TEN, seed=3, labels=(5,), guidance=1.5, batch=2) == [
        "00002.png"
    ]
    assert len(
        {
            fingerprint(run)
            for run in (
                TEN,
                made(10, seed=1),
                made(10, T=30),
                made(10, clip=None),
                PLAIN,
            )
        }
    ) == 5 and fingerprint(TEN) == fingerprint(made(10))


def test_a_folder_of_someone_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="folder must be new, empty"):
        fill(tmp_path, 2)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        fill(tmp_path / "file", 2)
    for text in ("{", "[]"):
        (tmp_path / "sampling.json").write_text(text)
        with pytest.raises(ValueError, match="folder must be new, empty"):
            fill(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "file",
        "letter.txt",
        "sampling.json",
    ]


def test_a_folder_whose_first_writing_was_killed_is_new(tmp_path):
    (tmp_path / ".sampling.json.0123456789ab.part").write_text('{"for')
    assert (
        fill(tmp_path, 2) == ["00000.png", "00001.png"]
        and len(list(tmp_path.iterdir())) == 3
    )


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="cannot write .*sampling.json"):
        fill(tmp_path / "new", 2)
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with pytest.raises(OSError, match="cannot write"):
        fill(tmp_path / "mine", 2)
    assert (tmp_path / "mine").is_dir()


def killed(work, folder, files, seconds):
    """Do `work` in a process of its own, and kill it so many seconds after `folder` has
    so many files. Returns whether it was still at work."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    patience = time.monotonic() + 60
    while (
        len(list(folder.glob("*.png"))) if folder.exists() else 0
    ) < files and time.monotonic() < patience:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_any_moment_a_folder_has_only_whole_files_and_is_completed(tmp_path):
    """The moments are counted in files, so that they fall into the work however busy
    the machine is."""
    n, moments, folder = 400, random.Random(0), tmp_path / "often"
    fill(tmp_path / "once", n, batch=16)
    sizes = [0]
    for _ in range(8):
        assert killed(
            lambda: fill(folder, n, batch=16),
            folder,
            sizes[-1] + moments.randrange(20),
            moments.uniform(0, 0.005),
        )
        sizes.append(len(whole(folder)) if folder.exists() else 0)
    assert sizes == sorted(sizes) and 0 < sizes[-1] < n
    fill(folder, n, batch=16)
    # no leftovers either
    assert (
        whole(folder) == whole(tmp_path / "once")
        and len(list(folder.iterdir())) == n + 1
    )


def test_killed_while_it_replaces_a_folder_never_mixes(tmp_path):
    """Wherever `claim` is stopped, the images that are there are of the kind that
    sampling.json names."""
    import ddpm_lit.folders as folders

    old, new = (sampling_settings(PLAIN, how(DDIM(S))) for S in (2, 3))
    for stop in range(1, 7):
        folder, calls = tmp_path / str(stop), []
        fill(folder, 4)

        def dying(self, *args, real=Path.unlink, **kwargs):
            calls.append(self)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return real(self, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folders.Path, "unlink", dying)
            try:
                claim(folder, new, overwrite=True)
            except KeyboardInterrupt:
                assert read_settings(folder) == old
            else:
                assert read_settings(folder) == new and not list(folder.glob("*.png"))


# Films and strips


@pytest.mark.parametrize(
    "sampler, frames, kept",
    [
        (DDIM(20), 20, 20),
        (DDIM(20), 8, 7),
        (DDIM(5), 8, 5),
        (DDPM(), 1, 1),
        (DPMSolver(7), 3, 3),
    ],
    ids=repr,
)
def test_trajectories_end_in_the_images(sampler, frames, kept, tmp_path):
    pixels = trajectories(PLAIN, how(sampler, batch=2), 5, frames)
    assert pixels.shape == (5, 2, kept, 1, 8, 8)
    assert largest(pixels[:, 0, -1], draw_pixels(PLAIN, how(sampler), 5)) <= 1
    save_trajectories(pixels, tmp_path / "x.png")
    save_trajectories_gif(pixels, tmp_path / "x.gif", columns=3)
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (kept * 66 - 2, 10 * 66 - 2)
    with Image.open(tmp_path / "x.gif") as image:
        assert (
            image.size == (6 * 34 - 2, 2 * 34 - 2)
            and getattr(image, "n_frames", 1) == kept
        )


def test_trajectories_show_what_there_is_and_what_is_made_of_it():
    xT = numbered_noise(PLAIN.shape, range(2))[0]
    kept = [
        step
        for i, step in enumerate(
            sample_steps(PLAIN, xT, DDIM(6)),
            1,
        )
        if i % 2 == 0
    ]
    pixels = trajectories(PLAIN, how(DDIM(6)), 2, frames=3)
    for k, step in enumerate(kept):
        assert (
            largest(pixels[:, 0, k], to_uint8(step.x)) <= 1
            and largest(pixels[:, 1, k], to_uint8(step.x0)) <= 1
        )
    assert largest(pixels[:, 0, 0], pixels[:, 1, 0]) > 20


def test_rows_are_images_and_columns_are_frames(tmp_path):
    pixels = (
        torch.arange(2 * 2 * 3, dtype=torch.uint8)
        .reshape(2, 2, 3, 1, 1, 1)
        .expand(2, 2, 3, 1, 8, 8)
        * 20
    )
    save_trajectories(pixels, tmp_path / "x.png")
    assert [
        [
            Image.open(tmp_path / "x.png").getpixel((66 * c + 5, 66 * r + 5))
            for c in range(3)
        ]
        for r in range(4)
    ] == [[0, 20, 40], [60, 80, 100], [120, 140, 160], [180, 200, 220]]


def test_film_begins_with_noise_and_ends_in_the_images():
    config = how(DDPM(), labels=range(3), guidance=2.0)
    frames = draw_frames(TEN, config, 4, frames=10)
    assert len(frames) == 11 and torch.equal(
        frames[0], to_uint8(numbered_noise(TEN.shape, range(4))[0])
    )
    assert largest(frames[-1], draw_pixels(TEN, config, 4)) <= 1


def test_watch_sees_every_step():
    seen = []

    def watch(steps):
        for step in steps:
            seen.append(step.t)
            yield step

    for x in PLAIN.draw_batches(7, DDIM(4), batch=3, watch=watch):
        pass
    assert len(seen) == 12
    config = how(DDIM(4), watch=watch)
    encode_decode(PLAIN, config, torch.zeros(1, 1, 8, 8))
    interpolation(PLAIN, config, 0, 1, 3)
    assert len(seen) == 20
    trajectories(PLAIN, config, 2)
    draw_frames(PLAIN, config, 2)
    draw_pixels(PLAIN, config, 2)
    inpaintings(PLAIN, config, *HALF, 2, resamples=1)
    assert len(seen) == 36


# Pictures that are there already


@pytest.mark.parametrize("sampler", [DDIM(8), DPMSolver(8)], ids=repr)
def test_interpolation_ends_at_its_ends(sampler):
    for run, given in ((PLAIN, {}), (TEN, dict(labels=4, guidance=1.5))):
        config = how(sampler, 3, batch=4, **given)
        way, plain = interpolation(run, config, 2, 5, 6), draw_pixels(run, config, 6)
        assert way.shape == (6, 1, 8, 8) and largest(
            way[[0, -1]], plain[[2, 5]]
        ) <= 1 < largest(way[2:4], plain[2:4])
    config = how(sampler)
    same = interpolation(PLAIN, config, 2, 2, 3)
    assert largest(same, draw_pixels(PLAIN, config, 3)[2:]) <= 1


def gentle(run: Run) -> Run:
    """The same with answers near those of smooth data: encoding needs a field that does
    not jump."""
    for p in run.model.parameters():
        p.mul_(0.7)
    return run


def test_the_error_of_encoding_falls_with_the_steps():
    run = gentle(made(10, T=200, clip=None))
    x0 = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    errors = []
    for steps in (5, 20, 80):
        got = encode_decode(run, how(DDIM(steps), labels=(1, 2, 3)), x0)
        torch.testing.assert_close(
            got.error,
            ((got.decoded + 1) / 2 - (x0 + 1) / 2).double().square().mean((1, 2, 3)),
            rtol=1e-4,
            atol=1e-12,
        )
        assert got.error.dtype == torch.float64
        torch.testing.assert_close(
            got.xT[1:2],
            encode_decode(run, how(DDIM(steps), labels=2), x0[1:2]).xT,
            rtol=1e-3,
            atol=1e-4,
        )
        xT = ddim_encode(run, x0, DDIM(steps), y=torch.tensor([1, 2, 3]))
        torch.testing.assert_close(got.xT, xT, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            got.decoded,
            sample(run, xT, DDIM(steps), y=torch.tensor([1, 2, 3])),
            rtol=1e-3,
            atol=1e-3,
        )
        errors.append(got.error.max().item())
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    way = to_float(interpolation(run, how(DDIM(80), labels=1), x0[0], x0[1], 5))
    assert ((way[[0, -1]] - x0[:2]) / 2).square().mean() < 1e-2


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_inpainting_keeps_what_is_known(sampler):
    x0 = to_float(
        torch.randint(0, 256, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    )
    keep = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    given, again = (x0, keep, 5), dict(resamples=2, jump=2)
    whole = inpaintings(PLAIN, how(sampler), *given, **again)
    pixels = to_uint8(x0)
    assert (
        largest(whole[:, keep[0]], pixels[keep[0]].expand(5, -1))
        <= 1
        < largest(whole[:, ~keep[0]], pixels[~keep[0]].expand(5, -1))
    )
    parts = inpaintings(PLAIN, how(sampler, batch=2), *given, **again)
    assert largest(parts, whole) <= 1
    assert len({x.numpy().tobytes() for x in whole}) == 5


def test_files_of_pictures_and_masks(tmp_path):
    x0 = to_float(
        torch.randint(0, 256, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    )
    save_image(x0, tmp_path / "x.png")
    torch.testing.assert_close(
        read_image(PLAIN, tmp_path / "x.png"), x0, rtol=0, atol=1e-6
    )
    assert read_image(made(channels=3), tmp_path / "x.png").shape == (3, 8, 8)
    save_image(
        torch.where(torch.arange(8) < 3, 1.0, -1.0).expand(1, 8, 8),
        tmp_path / "mask.png",
    )
    mask = read_mask(PLAIN, tmp_path / "mask.png")
    # white is filled in
    assert (
        mask.shape == (1, 1, 8, 8)
        and mask.dtype == torch.bool
        and mask[0, 0, 0].tolist() == [False] * 3 + [True] * 5
    )
    save_image(torch.full((1, 8, 8), -1.0), tmp_path / "black.png")
    save_image(torch.zeros(1, 8, 10), tmp_path / "wide.png")
    (tmp_path / "letter.png").write_text("no picture")
    for call, words in {
        lambda: read_mask(PLAIN, tmp_path / "black.png"): "black.png white",
        lambda: read_image(PLAIN, tmp_path / "wide.png"): "wide.png 8x8 10x8",
        lambda: read_mask(PLAIN, tmp_path / "wide.png"): "wide.png 8x8",
        lambda: read_image(
            PLAIN, tmp_path / "letter.png"
        ): "letter.png read as an image",
        lambda: read_image(PLAIN, tmp_path / "none.png"): "no image none.png",
    }.items():
        with pytest.raises(ValueError) as refusal:
            call()
        for word in words.split():
            assert word in str(refusal.value)


def test_other_parameterizations_and_no_clipping():
    run = Run(PLAIN.model, linear_schedule(20, 1e-3, 0.3), EPS, None)
    parts = draw_pixels(run, how(DDIM(5), batch=3), 4)
    assert largest(parts, draw_pixels(run, how(DDIM(5)), 4)) <= 1


# Contexts


def test_contexts_are_taken_in_turn():
    run = made(context_dim=2)
    rows = [[0.0, 1.0], [1.0, 0.0]]
    whole = levels(run.draw_batches(4, DDIM(5), labels=rows))
    for i, row in enumerate(rows):
        alone = levels(run.draw_batches(4, DDIM(5), labels=row))
        assert (
            largest(whole[i::2], alone[i::2])
            <= 1
            < largest(whole[1 - i :: 2], alone[1 - i :: 2])
        )
    assert (
        largest(
            levels(run.draw_batches(4, DDIM(5), labels=torch.tensor(rows), batch=3)),
            whole,
        )
        <= 1
    )
    assert (
        largest(
            levels(run.draw_batches(4, DDIM(5), labels=rows, guidance=0.0)),
            levels(run.draw_batches(4, DDIM(5))),
        )
        <= 1
    )
    first = how(DDIM(5), labels=rows[0], guidance=2.0)
    assert sampling_settings(run, first)["labels"] == [[0.0, 1.0]]
    assert interpolation(run, first, 0, 1, 3).shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    "labels", [3, [1.0, 2.0, 3.0], [[0.0, 1.0], [1.0]], [0.0, float("nan")], [], [[]]]
)
def test_contexts_that_do_not_fit_are_refused(labels):
    with pytest.raises(ValueError, match="labels|sequence"):
        check_labels(made(context_dim=2), labels)


# Fast


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_bfloat16_agrees_to_a_few_levels_and_leaves_the_run_alone(sampler):
    ten = placed(TEN, "cpu")
    before = {name: x.clone() for name, x in ten.model.state_dict().items()}
    whole = levels(ten.draw_batches(12, sampler, labels=(3, 8), guidance=2.0))
    half = optimized(ten, "bf16")
    got = levels(half.draw_batches(12, sampler, labels=(3, 8), guidance=2.0))
    assert 0 < (got - whole).abs().double().mean() < 3
    assert all(x.dtype == torch.bfloat16 for x in half.model.parameters())
    assert all(
        x.dtype == torch.float32 and torch.equal(x, before[name])
        for name, x in ten.model.state_dict().items()
    )
    assert fingerprint(half) != fingerprint(ten)  # a folder is of one kind
    assert torch.equal(
        levels(ten.draw_batches(12, sampler, labels=(3, 8), guidance=2.0)), whole
    )


def test_the_arithmetic_of_the_sampler_stays_in_float32():
    """Of many small steps, bfloat16 would lose most: the difference would grow with
    their number."""
    run = made(T=1000, seed=1)
    far = [
        (
            levels(optimized(run, "bf16").draw_batches(8, DDIM(S)))
            - levels(run.draw_batches(8, DDIM(S)))
        )
        .abs()
        .double()
        .mean()
        for S in (20, 200)
    ]
    assert far[1] < 2 * far[0] + 0.1
    for step in sample_steps(optimized(run, "bf16"), torch.randn(2, 1, 8, 8), DDIM(3)):
        assert step.x.dtype == step.x0.dtype == torch.float32


def test_contexts_in_bfloat16():
    run = made(context_dim=2)
    assert (
        largest(
            levels(
                optimized(run, "bf16").draw_batches(
                    4, DDIM(5), labels=[0.0, 1.0], guidance=2.0
                )
            ),
            levels(run.draw_batches(4, DDIM(5), labels=[0.0, 1.0], guidance=2.0)),
        )
        < 40
    )


def test_without_options_a_run_is_what_it_was():
    assert optimized(PLAIN) is PLAIN
    with pytest.raises(ValueError, match="precision must be fp32 or bf16, got 'fp16'"):
        optimized(PLAIN, "fp16")


def test_the_network_of_the_caller_stays_as_it_is():
    """Drawing wants another layout, and maybe another device; that is the business of
    a copy."""
    run = made(10)
    strides = [p.stride() for p in run.model.parameters()]
    for _ in run.draw_batches(2, DDIM(2), labels=3):
        pass
    assert [p.stride() for p in run.model.parameters()] == strides
    there = placed(run, "cpu")
    assert there.model is not run.model and placed(there, "cpu") is there
    assert type(there) is Run and there.facts is run.facts


@pytest.mark.slow
def test_compiled_is_the_same_picture():
    quick = optimized(TEN, compile=True)
    assert (
        "_compiled_call_impl" in vars(quick.model)
        and vars(TEN.model).get("_compiled_call_impl") is None
    )
    for options in (
        dict(n=4, labels=(3, 8), guidance=2.0),
        dict(n=5, batch=3, labels=1),
        dict(n=2),
    ):
        assert (
            largest(
                levels(quick.draw_batches(sampler=DDIM(5), **options)),
                levels(TEN.draw_batches(sampler=DDIM(5), **options)),
            )
            <= 1
        )
    assert fingerprint(quick) == fingerprint(TEN)
