"""What must not change what is learned: a stop, who reads the images, parts of a batch,
several processes, compilation."""

import subprocess
import sys
from itertools import islice

import pytest
import torch
import two_processes
from book import ROOT
from small import DATA, PICTURES, SCHEDULE, SMALL, network, run, same, trainer

from ddpm_lit import TrainConfig, Trainer, load_images, save_image
from ddpm_lit.storage import read_tensors


def test_stopped_and_continued_is_the_same_to_the_last_bit(tmp_path):
    whole = trainer()
    losses = [record.loss for record in whole.steps()]
    first = trainer()
    for _ in islice(first.steps(), 3):
        pass
    first.save(tmp_path)
    second = Trainer.restore(tmp_path, network(seed=9), SCHEDULE, DATA, device="cpu")
    assert second.step == 3 and [record.loss for record in second.steps()] == losses[3:]
    for mine, theirs in (
        (whole.model, second.model),
        (whole.ema_model(), second.ema_model()),
    ):
        assert all(
            torch.equal(a, b)
            for a, b in zip(mine.state_dict().values(), theirs.state_dict().values())
        )


@pytest.fixture
def folder(tmp_path):
    "The pictures as files, a folder for each class."
    for i, (image, label) in enumerate(zip(PICTURES.float(), PICTURES.labels)):
        save_image(image, tmp_path / "pictures" / str(label.item()) / f"{i:02d}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("there, then", [(2, 0), (0, 1)])
def test_resumed_in_the_middle_of_an_epoch_with_other_workers(
    folder, tmp_path, there, then
):
    """200 steps straight from memory; 100 from disk, a stop, and 100 more with another
    number of processes that read."""
    held, streamed = (
        load_images(folder, channels=1, image_size=6, stream=stream)
        for stream in (False, True)
    )
    config = dict(SMALL, steps=200, batch_size=7, flip=True, crop=2, label_drop=0.2)
    make = lambda data, **more: (
        network(num_classes=3),
        SCHEDULE,
        data,
        TrainConfig(**config | more),
    )
    whole = Trainer(*make(held), device="cpu")
    losses = run(whole)
    first = Trainer(*make(streamed, workers=there), device="cpu")
    assert run(first, 100) == losses[:100]
    first.save(tmp_path / "run")
    second = Trainer.restore(
        tmp_path / "run", *make(streamed, workers=then), device="cpu"
    )
    assert run(second) == losses[100:] and same(whole, second)


def test_parts_of_a_batch_add_up():
    one, parts, other = (
        two_processes.trained(1),
        two_processes.trained(3),
        two_processes.trained(1, seed=1),
    )
    apart = lambda a, b: max((a[name] - b[name]).abs().max().item() for name in a)
    assert apart(one, parts) < 1e-9 < 1e-4 < apart(one, other)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_two_processes_get_the_weights_of_one(tmp_path, accumulate):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(ROOT / "tests" / "two_processes.py"),
        str(tmp_path / "weights.safetensors"),
        str(accumulate),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ours, (theirs, _) = (
        two_processes.trained(),
        read_tensors(tmp_path / "weights.safetensors"),
    )
    assert (
        ours.keys() == theirs.keys()
        and max((p - theirs[name]).abs().max().item() for name, p in ours.items())
        < 1e-9
    )


def test_fp16_scales_its_loss_and_the_scale_is_resumed(tmp_path):
    options = dict(SMALL, precision="fp16")
    whole, first = (
        Trainer(network(), SCHEDULE, DATA, TrainConfig(**options), device="cpu")
        for _ in range(2)
    )
    assert run(whole, 1) == run(first, 1)
    for training in (whole, first):
        training.learner.scaler.update(2.0**10)
    losses = run(whole)  # of steps 2 to 6
    assert run(first, 2) == losses[:2]
    first.save(tmp_path)
    second = Trainer.restore(tmp_path, network(9), SCHEDULE, DATA, device="cpu")
    assert (
        second.learner.scaler.get_scale() == 2.0**10
        and run(second) == losses[2:]
        and same(whole, second)
    )


@pytest.mark.slow
def test_compiled_is_the_same_up_to_rounding():
    plain, quick = (
        Trainer(
            network(),
            SCHEDULE,
            DATA,
            TrainConfig(**SMALL | dict(compile=compile, steps=3)),
            device="cpu",
        )
        for compile in (False, True)
    )
    torch.testing.assert_close(
        torch.tensor(run(plain, 1)), torch.tensor(run(quick, 1)), rtol=1e-4, atol=1e-4
    )
    run(quick)
    assert quick.ema_model().state_dict().keys() == plain.model.state_dict().keys()
