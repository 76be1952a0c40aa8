"""Pictures as numbers: the map between levels and [-1, 1], and the sets that hold
images with what is known of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpm_lit.images import ImageData, checksum, grid, save_gif, save_grid, save_image
from ddpm_lit.images import to_float, to_pil, to_uint8

LABELS, CONTEXTS = (
    torch.tensor([2, 0, 1, 2]),
    torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]),
)
FOUR = ImageData(
    torch.arange(4 * 3 * 2 * 5, dtype=torch.uint8).reshape(4, 3, 2, 5),
    LABELS,
    name="four",
    contexts=CONTEXTS,
    names=("big", "red"),
)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_come_back(levels):
    every = torch.arange(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    x = ImageData(every, levels=levels).float()
    assert x.dtype == torch.float32 and torch.equal(x, to_float(every, levels))
    assert (
        x.min() == -1
        and x.max() == 1
        and torch.allclose(
            x.flatten().diff(), torch.tensor(2 / (levels - 1)), atol=1e-6
        )
    )
    if levels == 256:
        assert torch.equal(to_uint8(x), every)


@pytest.mark.parametrize(
    "index, rows",
    [
        (1, [1]),
        (-1, [3]),
        (slice(1, 3), [1, 2]),
        (torch.tensor([3, 0, 3]), [3, 0, 3]),
        (torch.tensor([True, False, False, True]), [0, 3]),
    ],
)
def test_a_part_keeps_what_is_known_of_its_images(index, rows):
    part = replace(FOUR, levels=200)[index]
    assert (
        torch.equal(part.images, FOUR.images[rows])
        and torch.equal(part.labels, LABELS[rows])
        and torch.equal(part.contexts, CONTEXTS[rows])
    )
    assert (part.name, part.names, part.levels, part.shape, len(part)) == (
        "four",
        ("big", "red"),
        200,
        (len(rows), 3, 2, 5),
        len(rows),
    )
    if isinstance(index, torch.Tensor):
        assert torch.equal(FOUR.pixels(index), part.images)


def changed(**parts) -> dict:
    return replace(FOUR, **parts).fingerprint()


def test_a_fingerprint_tells_sets_apart():
    other = FOUR.images.clone()
    other[3, 2, 1, 4] += 1
    prints = [
        FOUR.fingerprint(),
        changed(images=other),
        changed(images=FOUR.images.flip(0)),
        changed(images=FOUR.images[:, :, :, :4]),
        changed(labels=None),
        changed(labels=LABELS.flip(0)),
        changed(contexts=None, names=()),
        changed(contexts=1 - CONTEXTS),
        changed(levels=120),
    ]
    assert len({json.dumps(mark) for mark in prints}) == len(
        prints
    ) and FOUR.fingerprint() == changed(name="renamed", images=FOUR.images.clone())
    assert json.loads(json.dumps(prints[0])) == prints[0] and prints[0]["shape"] == [
        4,
        3,
        2,
        5,
    ]


def test_a_fingerprint_of_many_images_looks_at_a_thousand_spread_over_them():
    images = (
        torch.arange(2500, dtype=torch.int64)
        .remainder(256)
        .to(torch.uint8)
        .reshape(-1, 1, 1, 1)
    )
    marks = []
    for i in (0, 1, 1250, 2497):
        other = images.clone()
        other[i] += 1
        marks.append(ImageData(other).fingerprint() != ImageData(images).fingerprint())
    assert marks == [True, False, True, True]


def test_a_checksum_is_that_of_the_values_in_their_order():
    x = torch.arange(6).reshape(2, 3)
    assert checksum(None) is None and checksum(x.T) == checksum(
        x.T.contiguous()
    ) != checksum(x)


@pytest.mark.parametrize(
    "parts, words",
    [
        (dict(images=FOUR.images.float()), "images uint8 float32"),
        (dict(images=FOUR.images[0]), "images (3, 2, 5)"),
        (dict(images=FOUR.images[:0]), "images side 0"),
        (dict(labels=LABELS[:3]), "labels (4,) (3,)"),
        (dict(labels=LABELS.float()), "labels int64 float32"),
        (dict(contexts=CONTEXTS[:3]), "contexts (4, D) (3, 2)"),
        (dict(contexts=CONTEXTS.double()), "contexts float32 float64"),
        (dict(contexts=CONTEXTS[:, 0]), "contexts (4, D) (4,)"),
        (dict(contexts=CONTEXTS / 0), "contexts finite NaN"),
        (dict(names=("big",)), "names contexts 1"),
        (dict(contexts=None), "names labels 2"),
        (dict(contexts=None, labels=None), "names 2"),
        (
            dict(contexts=None, labels=LABELS - 1, names=("a", "b", "c")),
            "names labels 3",
        ),
        (dict(levels=1), "levels 2..256 1"),
        (dict(levels=119), "images 0..118 119"),
    ],
)
def test_a_set_that_cannot_be_right_is_refused(parts, words):
    with pytest.raises(ValueError) as refusal:
        replace(FOUR, **parts)
    assert all(word in str(refusal.value) for word in words.split()), str(refusal.value)


def test_pillow_images():
    assert (
        np.array_equal(
            np.asarray(to_pil(FOUR.images[1].numpy())).transpose(2, 0, 1),
            FOUR.images[1],
        )
        and to_pil(FOUR.images[1, :1].numpy()).mode == "L"
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_writers_take_levels_as_they_are(tmp_path, channels):
    """Floats are converted once, levels never: the same pixels in the same file."""
    x = torch.linspace(-1, 1, 5 * channels * 48).reshape(5, channels, 6, 8)
    levels = to_uint8(x)
    assert np.array_equal(grid(x, 2), grid(levels, 2))
    for name, write in {
        "one.png": lambda images, path: save_image(images[0], path),
        "grid.png": save_grid,
        "film.gif": lambda images, path: save_gif([images, images.flip(0)], path),
    }.items():
        write(x, tmp_path / name)
        write(levels, tmp_path / f"again {name}")
        first, second = ((tmp_path / n).read_bytes() for n in (name, f"again {name}"))
        assert first == second
    for wrong in (levels.int(), levels.bool()):
        with pytest.raises(ValueError, match="float"):
            save_grid(wrong, tmp_path / "wrong.png")
