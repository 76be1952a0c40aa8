"""Where images come from: named sets, folders, zips, CelebA; in memory or on disk;
and whatever is broken."""

import faulthandler
import gzip
import io
import json
import os
import pickle
import tarfile
import threading
import urllib.request
import warnings
import zipfile
from contextlib import contextmanager
from fractions import Fraction
from http.client import RemoteDisconnected
from pathlib import Path

import numpy as np
import pytest
import torch
from book import ROOT
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ddpm_lit.image_files as files
from ddpm_lit.images import ImageData
from ddpm_lit.image_files import ImageFiles, load_folder, load_image
from ddpm_lit.datasets import NAMED_DATA, _celeba_number, load_images

KINDS = {
    "PNG": "png",
    "JPEG": "jpg",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tiff",
    "WEBP": "webp",
    "PPM": "ppm",
}


def here(name: str) -> Path | None:
    "$DDPM_LIT_DATA, or shared/data beside the repository, if it holds `name`."
    folders = filter(
        None,
        [
            os.environ.get("DDPM_LIT_DATA"),
            ROOT.parent / "shared" / "data",
            ROOT / "shared" / "data",
        ],
    )
    return next(
        (Path(folder) for folder in folders if (Path(folder) / name).exists()), None
    )


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def put(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def images(folder: Path, *names: str, shape=(6, 6, 3)) -> Path:
    "Noise, another one in each file."
    for i, name in enumerate(names):
        put(folder / name, noise(i, *shape))
    return folder


def packed(folder: Path, path: Path, **options) -> Path:
    "A zip of the folder's files, in an order that is not theirs."
    with zipfile.ZipFile(path, "w", **options) as archive:
        for file in sorted((f for f in folder.rglob("*") if f.is_file()), reverse=True):
            archive.write(file, file.relative_to(folder))
    return path


def said(work, *words: str) -> str:
    "The one sentence with which `work` is refused."
    with pytest.raises(ValueError) as refusal:
        work()
    assert all(word in str(refusal.value) for word in words), str(refusal.value)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def same(a, b) -> bool:
    "Whether two sets have the same images, and know the same of them."
    index = torch.arange(len(a))
    known = [
        (x is None) == (y is None) and (x is None or torch.equal(x, y))
        for x, y in ((a.labels, b.labels), (a.contexts, b.contexts))
    ]
    return (
        len(a) == len(b)
        and torch.equal(a.pixels(index), b.pixels(index))
        and all(known)
        and (a.names, a.shape) == (b.names, b.shape)
    )


# Sets by name


def test_digits():
    train, test = load_images("digits"), load_images("digits", split="test")
    assert (
        len(train) + len(test) == 1797
        and train.shape[1:] == (1, 8, 8)
        and train.levels == 17
        and train.names == tuple("0123456789")
    )
    x = train.float()
    assert x.dtype == torch.float32 and x.min() == -1 and x.max() == 1
    assert set(train.labels.tolist()) == set(range(10)) and torch.equal(
        load_images("digits").images, train.images
    )
    together = {tuple(image.flatten().tolist()) for image in train.images} & {
        tuple(image.flatten().tolist()) for image in test.images
    }
    assert len(together) <= 2, "training and test digits do not overlap"


def test_digits_in_another_size_or_colour():
    digits, colour, large = (
        load_images("digits", split="test", **options)
        for options in ({}, {"channels": 3}, {"image_size": 16})
    )
    assert (
        torch.equal(colour.images, digits.images.expand(-1, 3, -1, -1))
        and colour.levels == 17
    )
    assert (
        large.shape == (450, 1, 16, 16)
        and large.levels == 256
        and large.images.max() > 200
        and torch.equal(large.labels, digits.labels)
        and large.names == digits.names
    )
    assert (
        large.images.reshape(-1, 8, 2, 8, 2).float().mean((2, 4)) / 255
        - digits.images[:, 0] / 16
    ).abs().mean() < 0.05


def idx(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim])
        + b"".join(n.to_bytes(4, "big") for n in array.shape)
        + array.tobytes()
    )


def idx_set(folder: Path, n: int = 7, pack: bool = True) -> np.ndarray:
    "A small set in MNIST's format in `folder`/raw; returns the training images."
    (folder / "raw").mkdir(parents=True)
    for part, seed in (("train", 0), ("t10k", 1)):
        for kind, array in (
            ("images-idx3", noise(seed, n, 28, 28)),
            ("labels-idx1", np.arange(n, dtype=np.uint8) % 10),
        ):
            (folder / "raw" / f"{part}-{kind}-ubyte{'.gz' * pack}").write_bytes(
                gzip.compress(idx(array)) if pack else idx(array)
            )
    return noise(0, n, 28, 28)


@pytest.mark.parametrize(
    "name, folder, first",
    [("mnist", "MNIST", "0"), ("fashion-mnist", "FashionMNIST", "T-shirt")],
)
@pytest.mark.parametrize("pack", [True, False])
def test_sets_in_the_format_of_mnist(tmp_path, monkeypatch, name, folder, first, pack):
    images = idx_set(tmp_path / folder, pack=pack)
    data = load_images(name, data_dir=tmp_path)
    assert (
        np.array_equal(data.images[:, 0], images)
        and data.labels.tolist() == list(range(7))
        and (data.name, data.names[0], len(data.names)) == (name, first, 10)
    )
    assert np.array_equal(
        load_images(name, tmp_path, split="test").images[:, 0], noise(1, 7, 28, 28)
    )
    monkeypatch.setenv("DDPM_LIT_DATA", str(tmp_path))
    assert same(load_images(name), data)
    monkeypatch.delenv("DDPM_LIT_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    idx_set(tmp_path / "cache" / "ddpm_lit" / folder, n=3)
    assert len(load_images(name)) == 3


def test_images_and_labels_of_different_sets_are_refused(tmp_path):
    idx_set(tmp_path / "MNIST")
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(idx(np.arange(6, dtype=np.uint8)))
    )
    said(
        lambda: load_images("mnist", tmp_path),
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "belong together",
    )
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(idx(np.full(7, 10, np.uint8)))
    )
    said(lambda: load_images("mnist", tmp_path), "belong together")


def test_mnist():
    if (folder := here("MNIST/raw/train-images-idx3-ubyte.gz")) is None:
        pytest.skip("MNIST is not here: put its archives into $DDPM_LIT_DATA/MNIST/raw")
    data = load_images("mnist", data_dir=folder, split="test")
    assert (
        data.images.shape == (10_000, 1, 28, 28)
        and data.levels == 256
        and data.labels[:5].tolist() == [7, 2, 1, 0, 4]
    )


@contextmanager
def network(monkeypatch, answer):
    "A network that gives `answer(url)`, and counts what it was asked for."
    asked = []

    def urlopen(request, *args, **kwargs):
        asked.append(request if isinstance(request, str) else request.full_url)
        return answer(asked[-1])

    with monkeypatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", urlopen)
        yield asked


@pytest.mark.parametrize(
    "problem",
    [
        urllib.error.URLError("no network"),
        RemoteDisconnected("gone"),
        TimeoutError("slow"),
    ],
)
@pytest.mark.parametrize(
    "name, folder",
    [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("cifar10", "CIFAR-10")],
)
def test_a_set_that_cannot_be_fetched(tmp_path, monkeypatch, name, folder, problem):
    def refuse(url):
        raise problem

    with (
        network(monkeypatch, refuse) as asked,
        pytest.raises(ConnectionError) as failure,
    ):
        load_images(name, data_dir=tmp_path)
    assert (
        asked
        and all(
            word in str(failure.value)
            for word in (folder, str(tmp_path), ".gz", "--data-dir", "DDPM_LIT_DATA")
        )
        and "\n" not in str(failure.value)
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], (
        "nothing half-done is left"
    )


def test_mnist_is_fetched_whole(tmp_path, monkeypatch):
    if (folder := here("MNIST/raw/train-images-idx3-ubyte.gz")) is None:
        pytest.skip("MNIST is not here: put its archives into $DDPM_LIT_DATA/MNIST/raw")

    class Answer(io.BytesIO):
        url, length = None, None

    with network(
        monkeypatch,
        lambda url: Answer(
            (folder / "MNIST/raw" / url.rpartition("/")[2]).read_bytes()
        ),
    ) as asked:
        assert (
            same(
                load_images("mnist", tmp_path, split="test"),
                load_images("mnist", folder, split="test"),
            )
            and len(set(asked)) == 4
        )
        assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
            [
                "MNIST",
                "raw",
                *(path.name for path in (folder / "MNIST/raw").glob("*.gz")),
            ]
        )
        before = len(asked)
        load_images("mnist", tmp_path)
        assert len(asked) == before, "fetched once"


def cifar_batches(n: int = 3) -> dict[str, bytes]:
    "Binary batches of n images each."
    rows = {
        name: noise(i, n, 3073)
        for i, name in enumerate(
            [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]
        )
    }
    for i, row in enumerate(rows.values()):
        row[:, 0] = (np.arange(n) + i) % 10
    return {name: row.tobytes() for name, row in rows.items()}


def cifar_folder(root: Path) -> Path:
    (root / "cifar-10-batches-bin").mkdir(parents=True)
    for name, data in cifar_batches().items():
        (root / "cifar-10-batches-bin" / name).write_bytes(data)
    return root


def cifar_tar(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, data in sorted(cifar_batches().items(), reverse=True):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return root


@pytest.mark.parametrize("make", [cifar_folder, cifar_tar])
def test_cifar10_without_pickles(tmp_path, monkeypatch, make):
    monkeypatch.setattr(pickle, "load", None)
    root = make(tmp_path)
    train, test = (
        load_images("cifar10", root),
        load_images("cifar10", root, split="test"),
    )
    assert (
        train.shape == (15, 3, 32, 32)
        and test.shape == (3, 3, 32, 32)
        and (train.names[0], train.names[9]) == ("airplane", "truck")
    )
    assert train.labels.tolist() == [
        (k + i) % 10 for i in range(5) for k in range(3)
    ] and test.labels.tolist() == [5, 6, 7]
    assert np.array_equal(
        train.images[4], noise(1, 3, 3073)[1, 1:].reshape(3, 32, 32)
    ), "all of red, then of green, then of blue"
    assert len(list(root.rglob("*"))) in (1, 7), "nothing is unpacked"
    grey, small = (
        load_images("cifar10", root, channels=1),
        load_images("cifar10", root, image_size=16),
    )
    red, green, blue = train.images.float().unbind(1)
    assert (
        grey.shape == (15, 1, 32, 32)
        and (grey.images[:, 0] - (0.299 * red + 0.587 * green + 0.114 * blue))
        .abs()
        .max()
        <= 1
    )
    assert small.shape == (15, 3, 16, 16) and torch.equal(small.labels, train.labels)


def test_damaged_cifar10(tmp_path):
    for name, data in {
        "short": cifar_batches()["data_batch_3.bin"][:-1],
        "empty": b"",
        "class": bytes([10]) + cifar_batches()["data_batch_3.bin"][1:],
    }.items():
        root = cifar_folder(tmp_path / name)
        (root / "cifar-10-batches-bin/data_batch_3.bin").write_bytes(data)
        said(lambda: load_images("cifar10", root), "CIFAR-10", "damaged", "3072")
        load_images("cifar10", root, split="test")
    (root / "cifar-10-batches-bin/data_batch_3.bin").unlink()
    said(lambda: load_images("cifar10", root), "cifar-10-batches-bin", "not complete")
    tar = cifar_tar(tmp_path / "tar") / "cifar-10-binary.tar.gz"
    tar.write_bytes(tar.read_bytes()[:2000])
    said(
        lambda: load_images("cifar10", tar.parent), "cifar-10-binary.tar.gz", "damaged"
    )


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_cifar10_with_pickles_that_torchvision_knows_and_others(tmp_path, monkeypatch):
    from hashlib import md5

    from torchvision.datasets import CIFAR10

    folder, hit, rows = tmp_path / "cifar-10-batches-py", tmp_path / "hit", {}
    folder.mkdir()
    for name, data in cifar_batches().items():
        row = np.frombuffer(data, np.uint8).reshape(-1, 3073)
        rows[name[:-4]] = pickle.dumps(
            {"data": row[:, 1:], "labels": row[:, 0].tolist()}
        )
    rows["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    for name, data in rows.items():
        (folder / name).write_bytes(data)
    with monkeypatch.context() as patch:
        patch.setattr(
            CIFAR10,
            "train_list",
            [
                [name, md5(rows[name]).hexdigest()]
                for name in rows
                if name.startswith("data")
            ],
        )
        patch.setattr(
            CIFAR10, "test_list", [["test_batch", md5(rows["test_batch"]).hexdigest()]]
        )
        patch.setattr(
            CIFAR10,
            "meta",
            {
                "filename": "batches.meta",
                "key": "label_names",
                "md5": md5(rows["batches.meta"]).hexdigest(),
            },
        )
        root = cifar_folder(tmp_path / "binary")
        for split in ("train", "test"):
            assert same(
                load_images("cifar10", tmp_path, split=split),
                load_images("cifar10", root, split=split),
            )
    (folder / "data_batch_1").write_bytes(pickle.dumps(Payload(hit)))
    said(lambda: load_images("cifar10", tmp_path), "cifar-10-batches-py", "checksum")
    assert not hit.exists(), "nothing is unpickled whose checksum is not known"
    pickle.loads((folder / "data_batch_1").read_bytes())
    assert hit.exists(), "the payload works"


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(source="digit"), ["digit", "mean digits", *NAMED_DATA, "zip"]),
        (dict(source="cifar-10"), ["mean cifar10"]),
        (dict(source=""), ["''"]),
        (dict(source="digits", split="valid"), ["split", "valid"]),
        (dict(source="digits", channels=2), ["channels", "2"]),
        (dict(source="digits", image_size=0), ["image_size", "0"]),
        (dict(source="digits", broken=-1), ["broken", "-1"]),
        (dict(source="digits", stream=True), ["stream", "digits"]),
        (
            dict(source="digits", attributes=("Young",)),
            ["attributes", "Young", "digits"],
        ),
        (
            dict(source="celeba", attributes=("Young", "Young")),
            ["attributes", "different"],
        ),
    ],
)
def test_mistakes_are_refused(options, words):
    said(lambda: load_images(**options), *words)


# One image

WANT = np.zeros((8, 8), np.uint8)
WANT[:, 4:] = 255


def kinds() -> dict[str, tuple]:
    """Each kind of file, as (image, format, options): all show black on the left and
    white on the right."""
    grey, turned = Image.fromarray(WANT), Image.Exif()
    turned[0x0112] = 6
    # a palette of black, whose colour 128 is transparent
    clear = Image.fromarray(np.uint8([0] * 255 + [128])[WANT], "P")
    clear.putpalette([0] * 768)
    return {
        "grey": (grey, "PNG", {}),
        "colour": (grey.convert("RGB"), "BMP", {}),
        "palette": (grey.convert("P"), "PNG", {}),
        "one bit": (grey.convert("1"), "PNG", {}),
        "grey and alpha": (
            Image.merge("LA", [Image.new("L", (8, 8)), Image.fromarray(255 - WANT)]),
            "PNG",
            {},
        ),
        "alpha": (
            Image.merge(
                "RGBA", [Image.new("L", (8, 8))] * 3 + [Image.fromarray(255 - WANT)]
            ),
            "PNG",
            {},
        ),
        "transparent colour": (clear, "PNG", {"transparency": 128}),
        "sixteen bits": (Image.fromarray(WANT.astype(np.uint16) * 257), "PNG", {}),
        "sixteen bits, TIFF": (
            Image.fromarray(WANT.astype(np.uint16) * 257),
            "TIFF",
            {},
        ),
        "32 bits": (Image.fromarray(WANT.astype(np.int32) * 257), "TIFF", {}),
        "CMYK": (grey.convert("CMYK"), "TIFF", {}),
        "YCbCr": (grey.convert("YCbCr"), "TIFF", {}),
        "EXIF": (grey.rotate(90), "JPEG", {"exif": turned, "quality": 100}),
        "EXIF in PNG": (grey.rotate(90), "PNG", {"exif": turned}),
        "moving GIF": (
            grey,
            "GIF",
            {"save_all": True, "append_images": [Image.new("L", (8, 8), 128)]},
        ),
        "WEBP": (grey.convert("RGB"), "WEBP", {"lossless": True}),
        "PPM": (grey.convert("RGB"), "PPM", {}),
    }


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize("channels", [1, 3])
def test_each_kind_of_file_arrives_as_it_looks(tmp_path, name, channels):
    im, format, options = kinds()[name]
    im.save(tmp_path / f"x.{KINDS[format]}", format, **options)
    x = load_image(tmp_path / f"x.{KINDS[format]}", channels=channels)
    assert (
        x.shape == (channels, 8, 8)
        and x.dtype == torch.uint8
        and (x.int() - torch.from_numpy(WANT).int()).abs().max() <= 1
    )
    assert same(load_images(tmp_path, channels=channels), ImageData(x[None]))


def test_all_shades_of_sixteen_bits(tmp_path):
    put(tmp_path / "x.png", np.arange(65536, dtype=np.uint16).reshape(256, 256))
    exact = torch.arange(65536).double() / 257
    assert (
        load_image(tmp_path / "x.png", channels=1).flatten().double() - exact
    ).abs().max() <= 0.5


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda path: Image.new("F", (4, 4)).save(path, "TIFF"), "floating-point"),
        (
            lambda path: Image.fromarray(np.full((4, 4), 70000, np.int32)).save(
                path, "TIFF"
            ),
            "16 bits",
        ),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_text("not an image"), "format is not known"),
        (
            lambda path: Image.new("RGB", (4, 4)).save(path, "EPS"),
            "format is not known",
        ),
        (lambda path: path.mkdir(), "not a file"),
        (lambda path: path.symlink_to("nowhere"), "not a file"),
        (lambda path: os.mkfifo(path), "not a file"),
        (lambda path: None, "not a file"),
    ],
    ids="float deep empty text eps folder link pipe missing".split(),
)
def test_what_is_no_image_is_refused_by_name(tmp_path, make, words):
    make(tmp_path / "x.tiff")
    said(
        lambda: load_image(tmp_path / "x.tiff"),
        f"{tmp_path / 'x.tiff'} cannot be read as an image",
        words,
    )


def test_the_middle_square(tmp_path):
    pixels = noise(0, 9, 20, 3)
    path = put(tmp_path / "x.png", pixels)
    assert np.array_equal(load_image(path).permute(1, 2, 0), pixels) and np.array_equal(
        load_image(path, 9).permute(1, 2, 0), pixels[:, 5:14]
    )
    mean = load_image(
        put(tmp_path / "even.png", np.tile(np.uint8([0, 255]), (64, 32))), 16, 1
    )
    assert mean.float().mean().sub(127.5).abs() < 1 and mean.float().std() < 10, (
        "fine stripes fade"
    )
    assert load_image(path, 33).shape == (3, 33, 33)


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 20) | st.none(),
    st.sampled_from([None, Fraction(148, 178), Fraction(1), Fraction(1, 3)]),
)
def test_a_square_of_any_image(width, height, size, share):
    square = files._square(Image.new("L", (width, height), 7), size, share)
    if share is None and size is None:
        assert square.size == (width, height)
    else:
        assert square.size[0] == square.size[1] == (
            size or max(1, round(min(share * width, height)))
        ) and np.unique(square).tolist() == [7]


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    images(tmp_path, "a.png", "b.png", "c.png", shape=(5, 5))
    for name, side in (("warned of.png", 12), ("refused.png", 20)):
        put(tmp_path / name, noise(0, side, side))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("warned of.png", "refused.png"):
        said(
            lambda: load_image(tmp_path / name),
            name,
            "100 pixels",
            "MAX_IMAGE_PIXELS",
        )
    for stream in (False, True):
        with pytest.warns(
            UserWarning, match="2 of the 5 .*refused.png, warned of.png; .*100 pixels"
        ) as caught:
            data = load_images(tmp_path, image_size=5, stream=stream)
        assert len(caught) == 1 and len(data) == 3
    said(lambda: load_images(tmp_path, broken=1), "2 of the 5")


# Folders and zips

DEEP = ("b.png", "a/z.png", "a/B.JPG".lower(), "a b/c/d.gif", "a.bmp", "a-1.webp")


@pytest.mark.parametrize("stream", [False, True])
def test_a_folder_and_its_zip_are_the_same(tmp_path, stream):
    folder = images(tmp_path / "photos", *DEEP)
    for name in (".hidden.png", ".cache/x.png", "__MACOSX/._b.png", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("nothing")
    data = [
        load_images(source, image_size=6, stream=stream)
        for source in (
            folder,
            packed(folder, tmp_path / "photos.zip"),
            packed(folder, tmp_path / "deflated.ZIP", compression=zipfile.ZIP_DEFLATED),
        )
    ]
    assert (
        all(same(other, data[0]) for other in data)
        and len(data[0]) == 6
        and [d.name for d in data] == ["photos", "photos", "deflated"]
    )
    in_order = sorted(DEEP, key=lambda name: Path(name).parts)
    assert (
        all(
            torch.equal(
                data[0].pixels(torch.tensor([i]))[0], load_image(folder / name, 6)
            )
            for i, name in enumerate(in_order)
        )
        and in_order[0] == "a/b.jpg"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "deflated.ZIP",
        "photos",
        "photos.zip",
    ], "nothing is unpacked"
    assert data[0].labels is None and data[0].names == ()


@pytest.mark.parametrize(
    "names, labels, classes",
    [
        (("dog/1.png", "cat/2.png", "cat/deep/1.png"), [0, 0, 1], ("cat", "dog")),
        (("dog/1.png", "cat/2.png", "3.png"), None, ()),
        (("cat/1.png", "cat/2.png"), None, ()),
        (("all/cat/1.png", "all/dog/1.png"), None, ()),
        (("10/a.png", "9/a.png", "9/b.png"), [0, 1, 1], ("10", "9")),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_folders_at_the_top_are_classes(tmp_path, names, labels, classes, stream):
    folder = images(tmp_path / "x", *names)
    for source in (folder, packed(folder, tmp_path / "x.zip")):
        data = load_images(source, image_size=6, stream=stream)
        assert (
            data.names == classes
            and (data.labels if labels is None else data.labels.tolist()) == labels
        )


@pytest.mark.parametrize(
    "name",
    [
        "/etc/x.png",
        "../x.png",
        "a/../../x.png",
        "a\\..\\x.png",
        "C:x.png",
        "..",
        "x.png\0.txt",
    ],
)
def test_a_zip_with_a_name_that_leads_out_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("good.png", b"")
        archive.writestr(
            "NAME" + "_" * (len(name) - 4) if len(name) > 4 else "N" * len(name), b""
        )
    placeholder = (
        "NAME" + "_" * (len(name) - 4) if len(name) > 4 else "N" * len(name)
    ).encode()
    (tmp_path / "x.zip").write_bytes(
        (tmp_path / "x.zip").read_bytes().replace(placeholder, name.encode())
    )
    said(lambda: load_images(tmp_path / "x.zip"), "x.zip", repr(name), "refused")


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def encoded(format: str = "PNG", seed: int = 0, side: int = 6) -> bytes:
    Image.fromarray(noise(seed, side, side, 3)).save(buffer := io.BytesIO(), format)
    return buffer.getvalue()


def test_zips_that_cannot_be_used(tmp_path):
    said(
        lambda: load_images(zipped(tmp_path / "empty.zip", {})),
        "empty.zip",
        "no images",
    )
    nested = zipped(
        tmp_path / "nested.zip",
        {"in.zip": zipped(tmp_path / "in.zip", {"x.png": encoded()}).read_bytes()},
    )
    said(lambda: load_images(nested), "nested.zip", "no images", "zips within a zip")
    (tmp_path / "page.zip").write_text("<html>quota exceeded</html>")
    said(lambda: load_images(tmp_path / "page.zip"), "page.zip", "not a zip")
    (tmp_path / "cut.zip").write_bytes(
        zipped(tmp_path / "x.zip", {"x.png": encoded()}).read_bytes()[:-30]
    )
    said(lambda: load_images(tmp_path / "cut.zip"), "cut.zip", "damaged")
    whole = bytearray((tmp_path / "x.zip").read_bytes())
    whole[whole.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(whole)
    said(
        lambda: load_images(tmp_path / "locked.zip"), "locked.zip", "encrypted", "x.png"
    )
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile(tmp_path / "x.zip", "a") as archive,
    ):
        archive.writestr("x.png", encoded(seed=1))
    said(lambda: load_images(tmp_path / "x.zip"), "x.zip", "two members", "x.png")
    said(
        lambda: load_images(put(tmp_path / "one.png", noise(0, 6, 6))),
        "one.png",
        "is a file",
        "zip",
    )
    said(lambda: load_images(tmp_path / "none.zip"), "no data set, folder or zip")


def test_a_zip_without_its_suffix_is_a_zip(tmp_path):
    assert len(load_images(zipped(tmp_path / "photos.cbz", {"x.png": encoded()}))) == 1


def test_members_of_a_zip_are_unpacked_up_to_a_limit(tmp_path, monkeypatch):
    members = {f"{i}.png": encoded(seed=i) for i in range(5)} | {
        "large.bmp": encoded("BMP", side=40)
    }
    monkeypatch.setattr(files, "LARGEST", 4000)
    for stream in (False, True):
        with pytest.warns(
            UserWarning, match="1 of the 6 .*large.bmp; .*4854 bytes, and at most 4000"
        ):
            assert (
                len(
                    load_images(
                        zipped(tmp_path / "x.zip", members), image_size=6, stream=stream
                    )
                )
                == 5
            )
    liar = bytearray(zipped(tmp_path / "y.zip", members).read_bytes())
    # the unpacked size in the zip's directory
    at = liar.index(b"large.bmp", liar.index(b"PK\1\2")) - 46 + 24
    liar[at : at + 4] = (100).to_bytes(4, "little")
    (tmp_path / "y.zip").write_bytes(liar)
    with pytest.warns(UserWarning, match="1 of the 6 .*large.bmp"):
        assert len(load_images(tmp_path / "y.zip", image_size=6)) == 5


def test_a_damaged_member_of_a_zip_is_noticed_by_its_checksum(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.bmp", encoded("BMP", i))
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[data.index(b"1.bmp") + 80] ^= 1  # one bit of one pixel
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.warns(UserWarning, match="1 of the 3 .*1.bmp.*CRC"):
        assert len(load_images(tmp_path / "x.zip")) == 2


def test_a_folder_that_must_not_be_read_is_not_passed_over(tmp_path, monkeypatch):
    folder, scandir = images(tmp_path / "x", "a/1.png", "b/1.png"), os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    said(lambda: load_images(folder), str(folder / "b"), "Permission denied")


def test_images_of_different_sizes(tmp_path):
    put(tmp_path / "a.png", noise(0, 4, 6, 3))
    put(tmp_path / "b.png", noise(0, 6, 4, 3))
    said(lambda: load_images(tmp_path), "a.png is 6x4", "b.png is 4x6", "image_size")
    assert load_images(tmp_path, image_size=4).shape == (2, 3, 4, 4)
    (tmp_path / "b.png").unlink()
    assert load_images(tmp_path).shape == (1, 3, 4, 6)
    said(lambda: load_images(tmp_path, split="test"), "no test split")
    said(lambda: load_images(images(tmp_path / "none")), "none")


# Broken images


def spoilt(folder: Path, n: int, bad: int) -> Path:
    "n images, the first `bad` of which are empty files."
    folder.mkdir()
    for i in range(n):
        (folder / f"{i:04}.png").write_bytes(b"" if i < bad else encoded(side=2))
    return folder


@pytest.mark.parametrize(
    "n, bad, broken, allowed",
    [
        (2, 1, None, False),
        (3, 1, None, True),
        (20, 9, None, True),
        (20, 10, None, False),
        (60, 10, None, True),
        (60, 11, None, False),
        (1200, 12, None, True),
        (1200, 13, None, False),
        (5, 1, 0, False),
        (5, 3, 3, True),
        (5, 4, 3, False),
        (5, 4, 99, True),
        (5, 5, 99, False),
        (1, 1, 5, False),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_how_many_may_be_broken(tmp_path, n, bad, broken, allowed, stream):
    folder = spoilt(tmp_path / "x", n, bad)

    def load():
        return load_images(folder, image_size=2, broken=broken, stream=stream)

    if not allowed:
        sentence = said(load, "cannot be read", "0000.png", "empty")
        assert (
            n == 1
            or f"of the {n} images" in sentence
            and "at least " in sentence
            and "broken" in sentence
        )
        return
    with pytest.warns(UserWarning) as caught:
        data = load()
    assert (
        len(data) == n - bad
        and len(caught) == 1
        and str(caught[0].message).startswith(f"{bad} of the {n} images in {folder}")
    )
    assert ("0009.png, ..." in str(caught[0].message)) == (
        bad > 10
    ) and "0010.png" not in str(caught[0].message)


def test_reading_that_is_given_up_leaves_no_thread_behind():
    "A thread that the garbage collector has to wait for can wait for ever."
    before, results = (
        threading.active_count(),
        files._in_threads(abs, list(range(-5000, 0))),
    )
    assert next(results) == 5000 and threading.active_count() == before
    assert list(results) == list(range(4999, 0, -1))


@pytest.mark.parametrize("stream", [False, True])
def test_those_that_are_left_keep_their_classes(tmp_path, stream):
    folder = images(tmp_path / "x", *(f"{c}/{i}.png" for c in "abc" for i in range(4)))
    for name in ("a/1.png", "b/0.png", "c/3.png"):
        (folder / name).write_bytes(b"")
    with pytest.warns(
        UserWarning, match="a/1.png, b/0.png, c/3.png; the first, because its format"
    ):
        data = load_images(folder, image_size=6, stream=stream)
    assert (
        data.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        and data.names == ("a", "b", "c")
        and torch.equal(data[3].images[0], load_image(folder / "b/1.png"))
    )


@pytest.mark.parametrize("pack", [False, True])
def test_a_image_that_turns_out_broken_on_disk_is_named(tmp_path, pack):
    members = {f"{i}.png": encoded(seed=i, side=30) for i in range(3)} | {
        "cut.png": encoded(side=30)[:900]
    }
    source = zipped(tmp_path / "x.zip", members) if pack else tmp_path / "x"
    if not pack:
        source.mkdir()
        [(source / name).write_bytes(data) for name, data in members.items()]
    data = load_images(source, image_size=6, stream=True)
    assert len(data) == 4 and len(data.pixels(torch.tensor([0, 2]))) == 2
    said(
        lambda: data.pixels(torch.tensor([0, 3])), str(source / "cut.png"), "truncated"
    )
    batches = iter(
        torch.utils.data.DataLoader(
            data, batch_size=None, sampler=[torch.tensor([3])], num_workers=1
        )
    )
    with pytest.raises(ValueError, match=r"cut.png cannot be read as an image"):
        next(batches)
    assert list(batches) == [], "its worker is done"
    if not pack:
        (source / "0.png").unlink()
        said(lambda: data.pixels(torch.tensor([0])), "0.png", "gone")


# In memory or on disk


def test_a_folder_by_itself_is_what_load_images_makes_of_it(tmp_path):
    folder = images(tmp_path / "mine", "a/0.png", "b/1.png", "b/2.png")
    for place in (folder, packed(folder, tmp_path / "packed.zip")):
        ours, theirs = (
            load_folder(place, 4, 1),
            load_images(place, image_size=4, channels=1),
        )
        assert (
            torch.equal(ours.images, theirs.images)
            and ours.labels.tolist() == theirs.labels.tolist() == [0, 1, 1]
            and (ours.name, ours.names) == (place.stem, ("a", "b"))
        )
    assert load_folder(folder).shape == (3, 3, 6, 6)
    with pytest.raises(ValueError, match="absent"):
        load_folder(tmp_path / "absent")


def test_the_size_decides_between_memory_and_disk(tmp_path, monkeypatch):
    folder = images(tmp_path / "x", *(f"{i}.png" for i in range(4)))
    monkeypatch.setattr(files, "IN_MEMORY", 4 * 3 * 6 * 6)
    assert (
        isinstance(load_images(folder), ImageData)
        and isinstance(load_images(folder, image_size=6), ImageData)
        and isinstance(load_images(folder, image_size=7), ImageFiles)
    )
    assert isinstance(
        load_images(folder, image_size=7, channels=1), ImageData
    ) and isinstance(load_images(folder, image_size=7, stream=False), ImageData)
    assert isinstance(load_images(folder, image_size=1, stream=True), ImageFiles)
    put(folder / "4.png", noise(4, 6, 6, 3))
    said(lambda: load_images(folder), "image_size", "5", "0.0 GiB")
    said(lambda: load_images(folder, stream=True), "image_size", "stream=True")
    assert isinstance(load_images(folder, stream=False), ImageData)
    assert (
        files.IN_MEMORY != 2**32 and 202_599 * 3 * 64**2 < 2**32 < 202_599 * 3 * 128**2
    ), "CelebA at 64 pixels is for the memory, at 128 for the disk"


@pytest.fixture
def streamed(tmp_path) -> tuple[ImageFiles, ImageData]:
    folder = tmp_path / "x"
    for i in range(12):
        put(folder / f"{'ab'[i % 2]}/{i:02}.png", noise(i, 9 + i, 20 - i, 3))
    source = packed(folder, tmp_path / "x.zip")
    return load_images(source, image_size=8, stream=True), load_images(
        source, image_size=8, stream=False
    )


def test_a_set_on_disk_has_the_face_of_one_in_memory(streamed):
    disk, memory = streamed
    assert (
        isinstance(disk, ImageFiles)
        and isinstance(memory, ImageData)
        and same(disk, memory)
        and disk.levels == memory.levels == 256
        and disk.name == memory.name == "x"
    )
    for index in (3, -1, slice(2, 9, 3), torch.tensor([5, 5, 0]), torch.arange(12) < 2):
        assert isinstance(disk[index], ImageData) and same(disk[index], memory[index])
    assert torch.equal(
        disk.pixels(torch.tensor([7, 1])), memory.pixels(torch.tensor([7, 1]))
    )


def test_a_set_on_disk_goes_to_other_processes(streamed):
    disk, memory = streamed
    assert same(pickle.loads(pickle.dumps(disk)), memory)
    loader = torch.utils.data.DataLoader(
        disk, batch_size=None, sampler=torch.arange(12).split(5), num_workers=2
    )
    batches = list(loader)
    assert torch.equal(
        torch.cat([batch.images for batch in batches]), memory.images
    ) and torch.equal(torch.cat([batch.labels for batch in batches]), memory.labels)


def test_a_child_opens_the_zip_anew(streamed):
    disk, memory = streamed
    disk.pixels(torch.tensor([0]))
    number = files._zip(disk.source).fp.fileno()
    before = os.lseek(number, 0, os.SEEK_CUR)
    child = os.fork()
    if child == 0:
        os._exit(
            0
            if torch.equal(
                torch.from_numpy(
                    files._read_pixels(disk.files[9], disk.source, 8, 3, None).copy()
                ),
                memory.images[9],
            )
            else 1
        )
    assert (
        os.waitpid(child, 0)[1] == 0 and os.lseek(number, 0, os.SEEK_CUR) == before
    ), "the child has moved the parent's place in the file"


def test_a_zip_that_is_replaced_is_read_anew(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a.png": encoded(seed=0)})
    data = load_images(path, image_size=6, stream=True)
    before = data.pixels(torch.tensor([0]))
    os.replace(
        zipped(
            tmp_path / "y.zip", {"b.png": encoded(seed=1), "a.png": encoded(seed=2)}
        ),
        path,
    )
    assert not torch.equal(data.pixels(torch.tensor([0])), before)


def test_a_fingerprint_of_files_tells_sets_apart(tmp_path):
    def mark(*names, add=b"", flip=False, size=6, **options):
        folder = images(tmp_path / str(mark.n), *names)
        mark.n += 1
        (folder / names[0]).write_bytes((folder / names[0]).read_bytes() + add)
        source = packed(folder, folder.with_suffix(".zip")) if flip else folder
        return load_images(
            source, image_size=size, stream=True, **options
        ).fingerprint()

    mark.n = 0
    base = mark("a/1.png", "b/1.png")
    assert json.loads(json.dumps(base)) == base == mark("a/1.png", "b/1.png") == mark(
        "a/1.png", "b/1.png", flip=True
    ) and base["shape"] == [2, 3, 6, 6]
    others = [
        base,
        mark("a/1.png", "b/2.png"),
        mark("a/1.png", "a/2.png"),
        mark("a/1.png", "b/1.png", add=b"x"),
        mark("a/1.png", "b/1.png", size=5),
        mark("a/1.png", "b/1.png", channels=1),
    ]
    assert len({json.dumps(other) for other in others}) == len(others)
    data = load_images(tmp_path / "0", image_size=6, stream=True)
    assert (
        ImageFiles(data.source, data.files, 6, labels=data.labels.flip(0)).fingerprint()
        != base
        != ImageFiles(
            data.source, data.files, 6, labels=data.labels, contexts=torch.ones(2, 1)
        ).fingerprint()
    )


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(files=()), "files"),
        (dict(image_size=0), "image_size 0"),
        (dict(channels=2), "channels 2"),
        (dict(labels=torch.zeros(3, dtype=torch.int64)), "labels"),
        (dict(names=("a",)), "names"),
    ],
)
def test_a_set_on_disk_that_cannot_be_right_is_refused(options, words):
    said(
        lambda: ImageFiles(
            **{
                "source": Path("x"),
                "files": ("a.png", "b.png"),
                "image_size": 8,
                **options,
            }
        ),
        *words.split(),
    )


# CelebA

ORIGINAL, HALF, NAMES = (178, 218), (89, 109), ("Eyeglasses", "Male", "Smiling")


def ramp(width: int, height: int, i: int = 0) -> np.ndarray:
    "Red tells the horizontal position, green the vertical one, blue the image."
    across, down = np.meshgrid(
        (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    )
    return (
        np.stack([across * 255, down * 255, 0 * across + i], -1)
        .round()
        .astype(np.uint8)
    )


def yes(n: int) -> list[int]:
    return [n % 2, n % 3 == 0, n % 5 == 0]


def celeba(
    root: Path,
    numbers,
    size=HALF,
    pack=False,
    inside="",
    attributes=True,
    parts: dict | None = None,
    part="img_align_celeba",
) -> Path:
    "A small CelebA of ramps below `root`."
    folder, photos = root / "celeba", root / "photos"
    for n in numbers:
        put(photos / inside / f"{n:06}.png", ramp(*size, n % 256))
    folder.mkdir(parents=True, exist_ok=True)
    if pack:
        packed(photos, folder / f"{part}.zip")
    else:
        photos.rename(folder / part)
    lines = [
        f"{n:06}.jpg " + " ".join(f"{2 * value - 1:2}" for value in yes(n))
        for n in sorted({*numbers, 7})
    ]
    if attributes:
        (folder / "list_attr_celeba.txt").write_text(
            "\n".join([str(len(lines)), " ".join(NAMES) + " ", *lines, ""])
        )
    if parts:
        (folder / "list_eval_partition.txt").write_text(
            "\n".join(f"{n:06}.jpg {part}" for n, part in parts.items()) + "\n"
        )
    return root


def blues(data) -> list[int]:
    return data.pixels(torch.arange(len(data)))[:, 2, 0, 0].tolist()


def test_celeba_cuts_148_of_178_pixels_out_of_the_middle(tmp_path):
    root = celeba(tmp_path, range(1, 11), ORIGINAL)
    for size in (None, 148):
        assert np.array_equal(
            load_images("celeba", root, size).images[2].permute(1, 2, 0),
            ramp(*ORIGINAL, 3)[35:183, 15:163],
        )
    assert (
        load_images("celeba", root).shape == (9, 3, 148, 148)
        and load_images("celeba", root, channels=1).shape == (9, 1, 148, 148)
        and load_images("celeba", root, stream=True).shape == (9, 3, 148, 148)
    )


@pytest.mark.parametrize("size", [16, 64, 74])
def test_celeba_cuts_the_same_square_at_any_size(tmp_path, size):
    whole, half, double = (
        load_images("celeba", celeba(tmp_path / str(w), range(1, 3), (w, h)), size)
        .images[0]
        .double()
        for w, h in (ORIGINAL, HALF, (356, 436))
    )
    assert (whole - half).abs().max() <= 1 and (whole - double).abs().max() <= 1
    inner = (torch.arange(size, dtype=torch.float64) + 0.5) / size  # of the square
    assert (half[0] - 255 * (15 + 148 * inner) / 178).abs()[:, 1:-1].max() <= 1.5 and (
        half[1] - 255 * ((35 + 148 * inner) / 218)[:, None]
    ).abs()[1:-1].max() <= 1.5


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("inside", ["", "img_align_celeba"])
@pytest.mark.parametrize("stream", [False, True])
def test_celeba_as_a_folder_or_zip_of_any_layout(tmp_path, pack, inside, stream):
    data = load_images(
        "celeba",
        celeba(
            tmp_path,
            range(1, 21),
            pack=pack,
            inside=inside,
            part="img_align_celeba" if inside else "img_align_celeba_first20_89x109",
        ),
        8,
        attributes=("Smiling", "Eyeglasses"),
        stream=stream,
    )
    assert (
        blues(data) == list(range(1, 19))
        and data.names == ("Smiling", "Eyeglasses")
        and (data.labels, data.name) == (None, "celeba")
    )
    assert data.contexts.dtype == torch.float32 and data.contexts.tolist() == [
        [yes(n)[2], yes(n)[0]] for n in range(1, 19)
    ]


@pytest.mark.parametrize(
    "numbers, parts, train, test",
    [
        (
            [5, 162770, 162771, 182637, 182638, 202599],
            None,
            [5, 162770],
            [182638, 202599],
        ),
        (range(1, 6), {1: 0, 2: 2, 3: 1, 4: 0, 5: 2, 6: 1}, [1, 4], [2, 5]),
        (range(1, 31), None, range(1, 28), range(28, 31)),
        (range(1, 6), None, range(1, 5), [5]),
        (range(1, 31), {n: n % 2 for n in range(1, 40)}, range(1, 28), range(28, 31)),
        ([200000, 200001], None, [], [200000, 200001]),
        ([1], None, [], [1]),
    ],
)
def test_which_photographs_of_celeba_are_for_testing(
    tmp_path, numbers, parts, train, test
):
    root = celeba(tmp_path, numbers, (18, 22), parts=parts)
    for split, want in (("train", train), ("test", test)):
        if want:
            assert blues(load_images("celeba", root, 4, split=split)) == [
                n % 256 for n in want
            ]
        else:
            said(
                lambda: load_images("celeba", root, 4, split=split),
                "CelebA",
                "split='train'",
            )


def test_what_is_missing_of_celeba(tmp_path):
    said(
        lambda: load_images("celeba", tmp_path),
        str(tmp_path / "celeba"),
        "img_align_celeba.zip",
        "list_attr_celeba.txt",
        "data_dir",
        "DDPM_LIT_DATA",
    )
    root = celeba(tmp_path / "x", range(1, 4), attributes=False)
    assert len(load_images("celeba", root, 8)) == 2
    said(
        lambda: load_images("celeba", root, 8, attributes=("Male",)),
        "list_attr_celeba.txt",
        "not there",
        "Anno",
    )
    celeba(root, range(1, 4), pack=True, part="img_align_celeba_part")
    assert load_images("celeba", root, 8, attributes="Male").names == ("Male",), (
        "the whole goes before a part"
    )
    (root / "celeba/img_align_celeba").rename(root / "celeba/img_align_celeba_other")
    said(
        lambda: load_images("celeba", root),
        "img_align_celeba_other and img_align_celeba_part.zip",
    )
    put(
        celeba(tmp_path / "y", range(1, 4)) / "celeba/img_align_celeba/cover.png",
        noise(0, 4, 4),
    )
    said(lambda: load_images("celeba", tmp_path / "y"), "cover.png", "000001.jpg")


@pytest.mark.parametrize(
    "attribute, meant",
    [
        ("smiling", "mean Smiling"),
        ("Eyeglass", "mean Eyeglasses"),
        ("Tall", "3 of CelebA are Eyeglasses, Male, Smiling"),
    ],
)
def test_unknown_attributes(tmp_path, attribute, meant):
    said(
        lambda: load_images(
            "celeba", celeba(tmp_path, range(1, 4)), attributes=("Male", attribute)
        ),
        repr(attribute),
        meant,
    )


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda text: text.replace("4\n", "5\n", 1), "first line 4 5"),
        (lambda text: "", "first line"),
        (lambda text: text[: text.rindex("000007")], "first line 3"),
        (
            lambda text: text.replace("000002.jpg ", "000002.jpg 1 "),
            "line 3 000002.jpg",
        ),
        (
            lambda text: text.replace("000003.jpg  1", "000003.jpg  2"),
            "line -1, 1 000003.jpg",
        ),
        (lambda text: text.replace("000003.jpg", "x.jpg"), "line x.jpg"),
        (lambda text: text.replace("000002", "000009"), "no line 1 000002"),
        (lambda text: text.encode("utf-16"), "text"),
        (lambda text: b"\xff" + text.encode(), "text"),
    ],
    ids=range(9),
)
def test_damaged_lists_of_celeba(tmp_path, damage, words):
    root = celeba(tmp_path, range(1, 4))
    path = root / "celeba/list_attr_celeba.txt"
    new = damage(path.read_text())
    path.write_bytes(new if isinstance(new, bytes) else new.encode())
    said(
        lambda: load_images("celeba", root, attributes=("Smiling", "Eyeglasses")),
        "list_attr_celeba.txt",
        *words.split(),
    )
    (root / "celeba/list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 3\n")
    said(
        lambda: load_images("celeba", root),
        "list_eval_partition.txt",
        "0, 1, 2",
        "000002.jpg 3",
    )


def test_the_real_celeba():
    if (root := here("celeba")) is None:
        pytest.skip(
            "CelebA is not here: put img_align_celeba.zip into $DDPM_LIT_DATA/celeba"
        )
    chosen = ("Smiling", "Eyeglasses", "Male")
    data = load_images("celeba", root, 64, split="test", attributes=chosen, stream=True)
    number, some = (
        [_celeba_number(name) for name in data.files],
        list(range(0, len(data), 97)),
    )
    assert (
        number == sorted(number)
        and data.shape[1:] == (3, 64, 64)
        and min(number) > 0.85 * max(number)
    )
    lines = (root / "celeba/list_attr_celeba.txt").read_text().splitlines()
    rows = {
        line.split()[0][:6]: dict(zip(lines[1].split(), line.split()[1:]))
        for line in lines[2:]
    }
    assert (
        data.contexts.tolist()
        == [[float(rows[f"{n:06}"][name] == "1") for name in chosen] for n in number]
        and 0.3 < data.contexts[:, 0].mean() < 0.7
    )
    for i in some[:4]:
        with Image.open(files._file(data.source, data.files[i])) as im:
            w, h = im.size
            box = np.array(
                [
                    15 / 178 * w,
                    h / 2 - 74 / 178 * w,
                    163 / 178 * w,
                    h / 2 + 74 / 178 * w,
                ]
            )
            assert (
                np.abs(
                    np.asarray(
                        im.resize((64, 64), Image.Resampling.BICUBIC, box=tuple(box))
                    ).astype(int)
                    - data[i].images[0].permute(1, 2, 0).numpy()
                ).max()
                <= 1
            )
    x = data[some].float()
    assert -0.5 < x.mean() < 0.3 and x.std() > 0.3


# Whatever is broken: each file is read or refused, in time, by a ValueError or with
# the warning

DAMAGES = {
    "cut": lambda data, rng, other: data[: rng.integers(0, len(data))],
    "flipped bits": lambda data, rng, other: flipped(data, rng, 1 + rng.integers(0, 8)),
    "random bytes": lambda data, rng, other: over(
        data, rng, rng.bytes(1 + rng.integers(0, 30))
    ),
    "zeros": lambda data, rng, other: over(data, rng, bytes(1 + rng.integers(0, 60))),
    "ones": lambda data, rng, other: over(
        data, rng, b"\xff" * (1 + rng.integers(0, 8))
    ),
    "another's head": lambda data, rng, other: (
        other[: (n := rng.integers(1, 40))] + data[n:]
    ),
    "twice": lambda data, rng, other: (
        data[: (n := rng.integers(0, len(data)))] + data[n // 2 :]
    ),
    "noise": lambda data, rng, other: rng.bytes(rng.integers(0, 200)),
}


def over(data: bytes, rng, new: bytes) -> bytes:
    at = rng.integers(0, len(data))
    return (data[:at] + new + data[at + len(new) :])[: len(data)]


def flipped(data: bytes, rng, n: int) -> bytes:
    data = bytearray(data)
    for at in rng.integers(0, 8 * len(data), n):
        data[at // 8] ^= 1 << at % 8
    return bytes(data)


def a_folder(root: Path) -> tuple[str, Path]:
    kind = list(KINDS)[
        len(root.name) % 7 if not root.name.isdigit() else int(root.name) % 7
    ]
    for i in range(3):
        put(root / f"good {i}.png", noise(i, 6, 6, 3))
    im = Image.fromarray(noise(9, 6, 6, 3))
    im = (im, im.convert("L"), im.convert("P"))[int(root.name) // 7 % 3]
    im.convert("RGB" if kind == "JPEG" and im.mode == "P" else im.mode).save(
        root / f"x.{KINDS[kind]}", kind
    )
    return str(root), root / f"x.{KINDS[kind]}"


def a_zip(root: Path) -> tuple[str, Path]:
    path = zipped(
        root / "x.zip",
        {
            f"{'ab'[i % 2]}/{i}.{KINDS[kind]}": encoded(kind, i, 4)
            for i, kind in enumerate(KINDS)
        },
    )
    return str(path), path


def an_idx(root: Path) -> tuple[str, Path]:
    idx_set(root / "MNIST", pack=int(root.name) % 2 == 0)
    return "mnist", sorted((root / "MNIST/raw").glob("train*"))[int(root.name) // 2 % 2]


def a_cifar(root: Path) -> tuple[str, Path]:
    if int(root.name) % 2:
        return "cifar10", cifar_folder(root) / "cifar-10-batches-bin/data_batch_2.bin"
    return "cifar10", cifar_tar(root) / "cifar-10-binary.tar.gz"


def an_attribute_list(root: Path) -> tuple[str, Path]:
    celeba(root, range(1, 6), (8, 10), pack=True, parts={n: n % 3 for n in range(1, 6)})
    return "celeba", root / "celeba" / (
        "list_attr_celeba.txt" if int(root.name) % 2 else "list_eval_partition.txt"
    )


SOURCES = (a_folder, a_folder, a_folder, a_zip, an_idx, a_cifar, an_attribute_list)


@contextmanager
def in_time(seconds: int, file: Path):
    "A loader that hangs ends the test run, and leaves in `file` where it hung."
    with open(file, "w") as open_file:
        faulthandler.dump_traceback_later(seconds, exit=True, file=open_file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def damaged(number: int, root: Path) -> str:
    "Make a source, damage one of its files, load it: 'read', 'left out' or 'refused'."
    rng, (kind, damage) = (
        np.random.default_rng(number),
        list(DAMAGES.items())[number // len(SOURCES) % len(DAMAGES)],
    )
    root.mkdir()
    source, path = SOURCES[number % len(SOURCES)](root)
    path.write_bytes(
        damage(path.read_bytes(), rng, encoded(list(KINDS)[rng.integers(0, 7)]))
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            data = load_images(
                source,
                root,
                image_size=(4, None)[number % 2],
                attributes=("Male",) if source == "celeba" else (),
                stream=(False, True)[number // 3 % 2]
                if number % 2 == 0 and source not in NAMED_DATA
                else None,
            )
        except ValueError as problem:
            assert str(problem) and len(str(problem)) < 1500, str(problem)
            data = None
        if isinstance(data, ImageFiles):
            try:
                data.pixels(torch.arange(len(data)))
            except ValueError as problem:
                assert "cannot be read as an image" in str(problem)
    said = [str(w.message) for w in caught]
    broken = [w for w in said if "cannot be read, and they are left out" in w]
    # a flipped bit in a zip may change the ending of a name
    others = [w for w in said if "files with other endings" in w]
    assert len(broken) <= 1 and len(others) <= 1, (kind, said)
    assert len(said) == len(broken) + len(others), (kind, said)
    return "refused" if data is None else "left out" if said else "read"


def all_damaged(numbers, root: Path) -> dict[str, int]:
    with in_time(300, root / "hung.txt"):
        results = [damaged(number, root / str(number)) for number in numbers]
    return {result: results.count(result) for result in ("read", "left out", "refused")}


def test_damaged_files_are_read_or_refused(tmp_path, capfd):
    results = all_damaged(range(100), tmp_path)
    assert sum(results.values()) == 100 and min(results.values()) >= 5, results
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_many_damaged_files_are_read_or_refused(tmp_path, capfd):
    results = all_damaged(range(100, 1300), tmp_path)
    assert sum(results.values()) == 1200 and min(results.values()) >= 60, results
    assert capfd.readouterr().err == ""


# What public bug reports found


def refuse(url):
    raise urllib.error.URLError("no network")


def counted(source: Path, *words: str) -> ImageData:
    "A folder or zip that is read with one warning, of files that are not."
    with pytest.warns(UserWarning) as caught:
        data = load_images(source)
    assert len(caught) == 1 and all(word in str(caught[0].message) for word in words)
    return data


def test_files_with_other_endings_are_counted(tmp_path):
    folder = images(tmp_path / "mine", "a.png", "b.png")
    for name in ("c.HEIC", "d.heic", "e.jxl", "no ending", ".hidden", "labels.csv"):
        (folder / name).write_bytes(b"something")
    words = ("1 .HEIC", "1 .heic", "1 .jxl", "1 without one", "pillow-heif")
    for source in (folder, packed(folder, tmp_path / "mine.zip")):
        assert len(counted(source, str(source), *words)) == 2
    for name in ("a.png", "b.png"):
        (folder / name).unlink()
    said(lambda: load_images(folder), "no images", "1 .HEIC", "pillow-heif")


def test_notes_beside_images_are_expected(tmp_path):
    folder = images(tmp_path / "mine", "a.png")
    for name in ("labels.csv", "README.md", "LICENSE.txt", "Thumbs.db", "info.json"):
        (folder / name).write_text("a note")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_images(folder)) == 1


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".JFIF"])
def test_other_endings_of_jpeg(tmp_path, ending):
    put(tmp_path / "x" / f"a{ending}", noise(0, 6, 6, 3), format="JPEG")
    assert load_images(tmp_path / "x").shape == (1, 3, 6, 6)


@pytest.mark.skipif("AVIF" not in files._formats(), reason="Pillow reads no AVIF here")
def test_avif_by_any_name(tmp_path):
    for name in ("a.avif", "b.png"):
        put(tmp_path / "x" / name, np.full((16, 16, 3), 200, np.uint8), format="AVIF")
    data = load_images(tmp_path / "x")
    assert data.shape == (2, 3, 16, 16) and (data.images.int() - 200).abs().max() <= 3


def test_avif_where_pillow_cannot_read_it(tmp_path, monkeypatch):
    folder = images(tmp_path / "x", "a.png")
    (folder / "b.avif").write_bytes(b"something")
    monkeypatch.setattr(files, "_formats", lambda: files._FORMATS)
    assert len(counted(folder, "1 .avif", "Pillow 11.3")) == 1


def test_a_dot_in_a_zip_means_here(tmp_path):
    members = ("./cat/a.png", "././cat/b.png", "./dog/a.png", "dog/./b.png")
    path = zipped(
        tmp_path / "dots.zip", {name: encoded(seed=i) for i, name in enumerate(members)}
    )
    data = load_images(path)
    assert data.names == ("cat", "dog") and data.labels.tolist() == [0, 0, 1, 1]
    assert same(load_images(path, stream=True, image_size=6), data)
    twice = zipped(tmp_path / "twice.zip", {"a.png": encoded(), "./a.png": encoded()})
    said(lambda: load_images(twice), "two members", "a.png")


@pytest.mark.parametrize("mark", ["schedule.json", "log.jsonl", "checkpoints"])
def test_a_run_folder_is_no_data(tmp_path, mark):
    folder = images(tmp_path / "run", "samples.png")
    (folder / "config.json").write_text("{}")
    assert len(load_images(folder)) == 1
    (folder / mark).mkdir()
    said(lambda: load_images(folder), str(folder), "training", "config.json", mark)


@pytest.mark.parametrize(
    "place, inside",
    [
        ("MNIST/raw", "MNIST/raw"),
        ("MNIST/raw", "MNIST"),
        ("MNIST/raw", "MNIST/raw/../raw"),
        ("mnist/raw", "mnist"),
        ("MNIST", ""),
        ("MNIST", "MNIST"),
    ],
)
def test_a_data_folder_that_leads_into_mnist(tmp_path, monkeypatch, place, inside):
    pixels = idx_set(tmp_path / "some")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / "some/raw").rename(tmp_path / place)
    with network(monkeypatch, refuse) as asked:
        data = load_images("mnist", tmp_path / inside)
    assert np.array_equal(data.images[:, 0], pixels) and not asked


@pytest.mark.parametrize("place", ["", "raw"])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_files_that_two_sets_have_are_not_guessed_at(tmp_path, place, name):
    idx_set(tmp_path / "some")
    root = tmp_path / "some" / place
    said(lambda: load_images(name, root), "MNIST", "FashionMNIST", "alike")


def test_fashion_is_not_taken_from_mnist(tmp_path, monkeypatch):
    idx_set(tmp_path / "MNIST")
    said(lambda: load_images("fashion-mnist", tmp_path / "MNIST/raw"), "alike")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_a_failed_fetch_leaves_nothing_behind(tmp_path, monkeypatch, name):
    with network(monkeypatch, refuse), pytest.raises(ConnectionError):
        load_images(name, tmp_path / "no" / "where")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inside", ["", "MNIST", "MNIST/raw"])
def test_the_files_that_are_missing_are_named(tmp_path, monkeypatch, inside):
    idx_set(tmp_path / "MNIST")
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    there = sorted(path.name for path in (tmp_path / "MNIST/raw").iterdir())
    with network(monkeypatch, refuse), pytest.raises(ConnectionError) as failure:
        load_images("mnist", tmp_path / inside, split="test")
    four = [
        f"{start}-{kind}-ubyte.gz"
        for start in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    for name in four:
        assert (name in str(failure.value)) == (name not in there)
    assert f"{tmp_path / 'MNIST/raw'}," in str(failure.value)
    assert there == sorted(path.name for path in (tmp_path / "MNIST/raw").iterdir())


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"])
def test_a_data_folder_that_leads_into_cifar10(tmp_path, inside):
    assert len(load_images("cifar10", cifar_folder(tmp_path) / inside)) == 15


@pytest.mark.parametrize("inside", ["", "celeba", "celeba/img_align_celeba"])
def test_a_data_folder_that_leads_into_celeba(tmp_path, inside):
    celeba(tmp_path, range(1, 5))
    assert load_images("celeba", tmp_path / inside, image_size=16).name == "celeba"


def test_kaggles_lists_of_celeba(tmp_path):
    celeba(tmp_path, range(1, 8), parts={n: n % 3 for n in range(1, 8)})
    options = dict(image_size=16, attributes=("Smiling", "Eyeglasses"))
    want = load_images("celeba", tmp_path, **options)
    for path in sorted((tmp_path / "celeba").glob("list_*.txt")):
        lines = [",".join(line.split()) for line in path.read_text().splitlines()]
        if "attr" in path.name:
            lines = ["image_id," + lines[1], *lines[2:]]
        else:
            lines = ["image_id,partition", *lines]
        path.with_suffix(".csv").write_text("\n".join(lines) + "\n")
        path.unlink()
    assert same(load_images("celeba", tmp_path, **options), want)
