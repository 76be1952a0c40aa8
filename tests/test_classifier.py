"""A small classifier: what it learns and what it must not depend on, its features, and
files that cannot be trusted."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from strategies import images
from torch.utils._python_dispatch import TorchDispatchMode

import ddpm_lit.classifier as module
from ddpm_lit import ImageData
from ddpm_lit.classifier import Classifier, accuracy, classifier_accuracy
from ddpm_lit.classifier import fit_classifier, load_classifier, predictions
from ddpm_lit.classifier import save_classifier
from ddpm_lit.datasets import load_images
from ddpm_lit.distances import features
from ddpm_lit.numbered import placed_model
from ddpm_lit.storage import read_tensors, write_tensors

IMAGES = ImageData(
    torch.randint(
        256,
        (30, 1, 6, 6),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.uint8,
    ),
    torch.arange(30) % 3,
)
COLOURED = replace(IMAGES, images=IMAGES.images.expand(-1, 3, -1, -1))
QUICK = dict(epochs=2, batch_size=8, width=2, flip=True)


def tiny(width: int = 2) -> Classifier:
    return Classifier(1, 3, width).eval()


def same(a: Classifier, b: Classifier) -> bool:
    return all(
        torch.equal(p, q)
        for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.fixture(scope="module")
def digits():
    return load_images("digits"), load_images("digits", split="test")


@pytest.fixture(scope="module")
def classifier(digits):
    return fit_classifier(digits[0], epochs=5, shift=0, width=12)


def squares(rows) -> ImageData:
    """Pictures of 8 by 8 with noise: each row says for the left and the right half
    whether it is bright, and this is the picture's context."""
    known = torch.tensor(rows, dtype=torch.float32)
    noise = torch.randint(
        0,
        100,
        (len(known), 1, 8, 8),
        generator=torch.Generator().manual_seed(len(known)),
    )
    return ImageData(
        (noise + 140 * known[:, None, None].repeat_interleave(4, 3)).to(torch.uint8),
        contexts=known,
        names=("left", "right"),
    )


def test_a_fit_is_a_function_of_its_seed(monkeypatch):
    first = fit_classifier(IMAGES, **QUICK)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    assert same(fit_classifier(IMAGES, **QUICK), first) and not first.training
    assert torch.equal(torch.random.get_rng_state(), before), (
        "a fit has drawn from torch's own random numbers"
    )
    first_weights, seeded = (
        fit_classifier(IMAGES, **QUICK, lr=0.0, seed=1).head.weight,
        module.seeded,
    )
    assert not torch.equal(
        first_weights, fit_classifier(IMAGES, **QUICK, lr=0.0).head.weight
    )
    # the same first weights
    monkeypatch.setattr(module, "seeded", lambda seed: seeded(0))
    assert not same(fit_classifier(IMAGES, **QUICK, seed=1), first), (
        "another seed, the same order and moves"
    )


def test_digits_are_learned(digits, classifier):
    assert accuracy(classifier, digits[1]) > 0.95


def test_attributes_are_questions_with_yes_or_no():
    every = list(product((0, 1), repeat=2))
    seen = squares(every * 40)
    net = fit_classifier(seen, 10, batch_size=40, width=4, shift=0)
    assert net.outputs == 2 and accuracy(net, squares(every * 10)) == 1
    assert ((predictions(net, squares(every)) > 0) == torch.tensor(every)).all()
    assert (
        fit_classifier(replace(seen, labels=torch.arange(160) % 5), 1, width=2).outputs
        == 5
    ), "labels go before attributes"


def test_images_are_only_moved():
    x0, shift, side = images(0, 600, 2, 4, 5), 2, (0, 1, 2, 3, 4)

    def moved(shift, flip):
        return module._moved(
            x0,
            shift,
            flip,
            module._moves(len(x0), shift, flip, torch.Generator().manual_seed(0)),
        )

    assert torch.equal(moved(0, False), x0)
    mirrored = torch.stack([x0, x0.flip(3)])
    padded = np.pad(mirrored.numpy(), [(0, 0)] * 3 + [(shift, shift)] * 2, mode="edge")
    # (25, 2, N, C, H, W)
    crops = np.stack(
        [
            padded[:, :, :, row : row + 4, column : column + 5]
            for row in side
            for column in side
        ]
    )

    def found(out):
        return (crops == out.numpy()).all((3, 4, 5))

    assert (hits := found(moved(shift, True))).any((0, 1)).all() and hits.any(
        2
    ).all(), "every picture is a crop, and every crop occurs"
    assert 240 < hits[:, 1].sum() < 360 and (hits.sum((1, 2)) > 8).all(), (
        "half of them are mirrored, and no place is rare"
    )
    assert (
        found(moved(shift, False))[:, 0].any(0).all()
        and found(moved(0, True))[12].any(0).all()
    )


def test_features_do_not_depend_on_the_batch(digits, classifier):
    data = digits[1][:40]
    want = classifier.features(data.float()).detach()
    for batch in (1, 7, 40, 500):
        torch.testing.assert_close(
            features(classifier, data, batch), want, rtol=0, atol=1e-5
        )
    found = features(classifier, data)
    assert (
        found.shape == (40, 48)
        and found.dtype == torch.float32
        and not found.requires_grad
        and found.min() >= 0
    )
    torch.testing.assert_close(
        predictions(classifier, data),
        classifier(data.float()).detach(),
        rtol=0,
        atol=1e-4,
    )


class Moved(TorchDispatchMode):
    """Counts tensors that change their device, and refuses that a computation leaves
    the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        if isinstance(out, torch.Tensor) and isinstance(
            args[0] if args else None, torch.Tensor
        ):
            self.count += out.device != args[0].device
        return out


def test_training_runs_on_the_device():
    """The meta device has shapes and no values: a look at one would be an error, as it
    would stall a GPU."""

    def batches(epochs, device):
        made = module._batches(IMAGES, IMAGES.labels, 8, 1, True, device, seed=0)
        return [next(made) for _ in range(4 * epochs)]

    for x0, label in batches(2, "meta"):
        assert (
            x0.device.type == label.device.type == "meta"
            and x0.shape[1:] == (1, 6, 6)
            and len(label) == len(x0)
        )
    for epochs in (1, 3):
        with Moved() as moved:
            batches(epochs, "meta")
        assert moved.count == 2 + epochs, (
            "the images and labels once, and what is random once an epoch"
        )
    # the trained network cannot come back, which is the last step
    with Moved() as moved, pytest.raises(NotImplementedError, match="meta"):
        fit_classifier(IMAGES, 3, batch_size=8, width=2, flip=True, device="meta")
    network = sum(1 for _ in (*tiny().parameters(), *tiny().buffers()))
    assert moved.count <= 2 + 3 + network


def test_features_are_computed_on_the_device():
    net = tiny()
    found = features(net, IMAGES, device="meta")
    assert found.device.type == "meta" and found.shape == (30, 8)
    assert predictions(net, IMAGES, device="meta").device.type == "meta"
    # only the answer is looked at
    with pytest.raises(RuntimeError, match="meta"):
        accuracy(net, IMAGES, "meta")


def test_the_network_of_the_caller_stays_where_it_is():
    net = placed_model(tiny(), "cpu")
    assert placed_model(net, "cpu") is net
    there, before = placed_model(net, "meta"), [x.data_ptr() for x in net.parameters()]
    assert {x.device.type for x in (*there.parameters(), *there.buffers())} == {
        "meta"
    } and placed_model(there, "meta") is there
    features(net, IMAGES, device="meta")
    assert [x.data_ptr() for x in net.parameters()] == before and {
        x.device.type for x in net.buffers()
    } == {"cpu"}


def test_accuracy_counted_by_hand():
    net = tiny()
    logits = predictions(net, IMAGES)
    labels, yes = logits.argmax(1), (logits > 0).float()
    labels[:12] = (labels[:12] + 1) % 3
    yes[4:11, 1] = 1 - yes[4:11, 1]
    assert (
        accuracy(net, replace(IMAGES, labels=labels))
        == accuracy(net, replace(IMAGES, labels=labels, contexts=yes))
        == 18 / 30
    )
    assert accuracy(net, replace(IMAGES, labels=None, contexts=yes)) == pytest.approx(
        83 / 90, abs=1e-12
    )


def test_the_score_is_what_samples_teach():
    """Three kinds of pictures. Among the samples those of the third kind are named like
    the second."""

    def kinds(*counts):
        return replace(
            squares(
                [
                    kind
                    for kind, count in zip([(0, 0), (1, 0), (1, 1)], counts)
                    for _ in range(count)
                ]
            ),
            contexts=None,
            names=(),
            labels=torch.arange(3).repeat_interleave(torch.tensor(counts)),
        )

    samples, test = kinds(40, 80, 40), kinds(15, 5, 10)
    assert classifier_accuracy(
        replace(samples, labels=samples.labels.clamp(max=1)),
        test,
        epochs=10,
        batch_size=40,
        width=4,
        shift=0,
    ) == pytest.approx(20 / 30, abs=1e-12)


@pytest.mark.parametrize(
    "mistake, words",
    [
        (
            lambda: fit_classifier(replace(IMAGES, labels=None, name="plain")),
            "data labels contexts plain",
        ),
        (lambda: fit_classifier(IMAGES, 0), "epochs 1 0"),
        (lambda: predictions(tiny(), COLOURED), "data (30, 3, 6, 6) (N, 1, H, W)"),
        (lambda: features(tiny(), COLOURED), "data (30, 3, 6, 6) (N, 1, H, W)"),
    ],
)
def test_mistakes_are_refused(mistake, words):
    with pytest.raises(ValueError) as refusal:
        mistake()
    assert all(word in str(refusal.value) for word in words.split()), str(refusal.value)


def test_a_classifier_comes_back(tmp_path):
    net = fit_classifier(IMAGES, **QUICK)
    folder = save_classifier(
        tmp_path / "some" / "judge", net, {"data": "noise", "accuracy": 0.5}
    )
    again, config = load_classifier(folder)
    assert (
        same(again, net)
        and torch.equal(predictions(again, IMAGES), predictions(net, IMAGES))
        and not again.training
    )
    assert config == {
        "format": 1,
        "in_channels": 1,
        "outputs": 3,
        "width": 2,
        "data": "noise",
        "accuracy": 0.5,
    }
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "weights.safetensors",
    }


def refusal_of(folder) -> str:
    with pytest.raises(ValueError) as refusal:
        load_classifier(folder)
    assert str(folder) in str(refusal.value) and "\n" not in str(refusal.value), str(
        refusal.value
    )
    return str(refusal.value)


@pytest.mark.parametrize(
    "name, damage, says",
    [
        ("config.json", None, "missing"),
        ("config.json", lambda b: b[:-3], "not JSON"),
        ("config.json", lambda b: b"[]", "a JSON object"),
        ("config.json", lambda b: b"{}", "'format' is missing"),
        ("config.json", lambda b: b.replace(b"width", b"girth"), "'width' is missing"),
        ("config.json", lambda b: b"\xff" + b, "not JSON"),
        ("weights.safetensors", None, "missing"),
        ("weights.safetensors", lambda b: b[:-1], "damaged"),
        ("weights.safetensors", lambda b: b[:20], "damaged"),
        ("weights.safetensors", lambda b: b"", "damaged"),
        (
            "weights.safetensors",
            lambda b: b.replace(b"head.bias", b"head.bios"),
            "head.bias",
        ),
    ],
)
def test_broken_files_are_refused_in_a_sentence(tmp_path, name, damage, says):
    path = save_classifier(tmp_path / "judge", tiny(), {}) / name
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    assert says in refusal_of(path.parent)


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("format", 2, "format is 2"),
        ("format", "1", "format is '1'"),
        ("format", None, "format is None"),
    ]
    + [
        (name, value, "its shape is")
        for name in ("in_channels", "outputs", "width")
        for value in (0, -1, 10**12, 10**400, "2", 2.0, None, [2], {})
    ]
    + [
        ("in_channels", 3, "layers.0.weight"),
        ("outputs", 4, "head."),
        ("width", 3, "should be"),
        ("width", 4096, "should be"),
    ],
)
def test_hostile_settings_are_refused_in_a_sentence(tmp_path, name, value, says):
    folder = save_classifier(tmp_path / "judge", tiny(), {})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {name: value}))
    assert says in refusal_of(folder)


def test_weights_of_another_network_are_refused(tmp_path):
    folder = save_classifier(tmp_path / "judge", tiny(), {})
    for weights in (
        tiny(3).state_dict(),
        {},
        {name: x.to(torch.int8) for name, x in tiny().state_dict().items()},
        read_tensors(folder / "weights.safetensors")[0] | {"more": torch.zeros(1)},
    ):
        write_tensors(folder / "weights.safetensors", weights)
        assert "does not fit the network" in refusal_of(folder)


@pytest.mark.parametrize("name", ["no-such-judge", "../no-such-judge", "\0"])
def test_without_a_classifier_the_choice_is_named(name):
    with pytest.raises(
        ValueError, match="name_or_folder must be a folder of a classifier or one of"
    ):
        load_classifier(name)
