"The data that a test can have without a network: the digits always, MNIST where someone put it."
import os
from pathlib import Path

import pytest
import torch
from book import ROOT

from ddpm_lit.data import load_images, to_uint8


def mnist_folder() -> Path | None:
    "$DDPM_LIT_DATA, or shared/data beside the repository."
    for folder in filter(None, [os.environ.get("DDPM_LIT_DATA"), ROOT.parent / "shared" / "data", ROOT / "shared" / "data"]):
        if (Path(folder) / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").exists(): return Path(folder)
    return None


def test_digits():
    train, test = load_images("digits"), load_images("digits", split="test")
    assert len(train) + len(test) == 1797 and train.images.shape[1:] == (1, 8, 8) and train.levels == 17
    x = train.float()
    assert x.dtype == torch.float32 and x.min() == -1 and x.max() == 1
    assert set(train.labels.tolist()) == set(range(10)) and torch.equal(load_images("digits").images, train.images)
    together = {tuple(image.flatten().tolist()) for image in train.images} & {tuple(image.flatten().tolist()) for image in test.images}
    assert len(together) <= 2, "training and test digits do not overlap"


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_come_back(levels):
    from ddpm_lit.data import ImageData
    every = torch.arange(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    x = ImageData(every, levels=levels).float()
    assert x.min() == -1 and x.max() == 1 and torch.allclose(x.flatten().diff(), torch.tensor(2 / (levels - 1)), atol=1e-6)
    if levels == 256: assert torch.equal(to_uint8(x), every)


def test_mnist():
    folder = mnist_folder()
    if folder is None: pytest.skip("MNIST is not here: put its archives into $DDPM_LIT_DATA/MNIST/raw")
    data = load_images("mnist", data_dir=folder, split="test")
    assert data.images.shape == (10_000, 1, 28, 28) and data.levels == 256 and data.labels[:5].tolist() == [7, 2, 1, 0, 4]


@pytest.mark.parametrize("options, names", [
    (dict(source="digit"), ["digit"]), (dict(source="digits", split="valid"), ["split", "valid"]), (dict(source="digits", channels=2), ["channels", "2"]),
])
def test_mistakes_are_refused(options, names):
    with pytest.raises((ValueError, FileNotFoundError)) as refusal: load_images(**options)
    assert all(name in str(refusal.value) for name in names), str(refusal.value)
