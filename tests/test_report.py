"""The report on a run: what is requested, what is compared with what, and models whose
truth is known."""

import inspect

import pytest
import torch

from ddpm_lit import report
from ddpm_lit.images import ImageData
from ddpm_lit.ddim import DDIM
from ddpm_lit.evaluate import nearest_distances
from ddpm_lit.datasets import load_images
from ddpm_lit.prediction import V
from ddpm_lit.generate import DrawConfig
from ddpm_lit.report import FLOORS, Inception, classifier_for, evaluate_run
from ddpm_lit.report import labels_like, sampled, table
from ddpm_lit.runs import Run, RunFacts, load_pretrained
from ddpm_lit.schedule import cosine_schedule
from ddpm_lit.configs import TrainConfig, UNetConfig
from ddpm_lit.unet import UNet


@pytest.fixture(scope="module")
def digits():
    return load_images("digits"), load_images("digits", split="test")


@pytest.fixture(scope="module")
def shipped():
    return load_pretrained("digits")


def small_run(**known):
    torch.manual_seed(0)
    return Run(
        UNet(
            UNetConfig(
                image_size=8,
                in_channels=1,
                channels=8,
                multipliers=(1,),
                blocks=1,
                attention=(),
                **known,
            )
        ).eval(),
        cosine_schedule(20),
        V,
        (-1, 1),
        RunFacts(train=TrainConfig()),
    )


def test_the_shipped_model_of_digits_draws_the_requested_class(digits, shipped):
    found = evaluate_run(shipped, *digits, DrawConfig(DDIM(10)), n=200)
    assert found["agreement"] > 0.95 and found["agreement_real"] > 0.98
    assert found["distance"]["frechet"] < 3 * found["floor"]["frechet"]
    assert (
        abs(found["nearest"]["mean"] / found["nearest"]["mean_real"] - 1) < 0.15
        and found["nearest"]["smallest"] > 0.3
    )
    assert (
        found["judge"]["name"] == "digits"
        and found["floor"]["choices"] == FLOORS
        and found["distance"]["n"] == found["n"] == 200
    )
    assert found["sampler"] == {
        "name": "DDIM",
        "steps": 10,
        "eta": 0.0,
        "spacing": "trailing",
        "quad_end": 1.0,
    }


def test_the_nearest_image_is_found_as_by_all_differences():
    g = torch.Generator().manual_seed(0)
    # much in common: the fast form loses digits
    known = torch.randn(1, 3, 32, 32, generator=g).tanh() + 0.3 * torch.randn(
        500, 3, 32, 32, generator=g
    )
    images = torch.cat(
        [
            known[:50],
            known[50:100] + 1e-3 * torch.randn(50, 3, 32, 32, generator=g),
            torch.randn(50, 3, 32, 32, generator=g),
        ]
    )
    every = torch.stack(
        [(known.double() - x).flatten(1).norm(dim=1).min() for x in images.double()]
    )
    found = nearest_distances(images, known)
    assert (found[:50] == 0).all() and torch.allclose(
        found.double(), every, rtol=1e-5, atol=0
    )
    assert torch.equal(
        nearest_distances(images, known[:3]),
        torch.cat([nearest_distances(x[None], known[:3]) for x in images]),
    )


def test_an_untrained_model_is_far_from_the_floor(digits):
    found = evaluate_run(small_run(), *digits, DrawConfig(DDIM(2)), n=100)
    assert (
        found["distance"]["frechet"] > 5 * found["floor"]["frechet"]
        and "agreement" not in found
        and "score" not in found
        and "bits" not in found
    )


def test_the_floor_is_drawn_anew(digits, shipped):
    train, test = digits
    floor = evaluate_run(shipped, train, test, samples=test[:60])["floor"]
    assert (
        floor["frechet_spread"] > 0.05 * floor["frechet"]
        and floor["kernel_spread"] > 0
        and floor["choices"] == FLOORS
    )
    # of 80 out of 80 there is one choice, and nothing to say of a spread
    whole = evaluate_run(shipped, train[:80], test, samples=test[:80])
    assert whole["floor"]["choices"] == 1 and "frechet_spread" not in whole["floor"]
    assert " ± " not in next(
        line for line in table(whole).splitlines() if line.startswith("Fréchet")
    )


def test_copies_are_found(digits, shipped):
    train, test = digits
    copies = evaluate_run(shipped, train, test, samples=train[:100])
    assert (
        copies["nearest"]["mean"] == 0
        and copies["nearest"]["counts"][0] == 100
        and sum(copies["nearest"]["counts_real"])
        == copies["nearest"]["held_out"]
        == 450
    )
    disguised = ImageData(
        (train.images[:100].int() + torch.randint(-1, 2, (100, 1, 8, 8)))
        .clamp(0, 16)
        .to(torch.uint8),
        levels=17,
    )
    assert (
        evaluate_run(shipped, train, test, samples=disguised)["nearest"]["mean"]
        < 0.6 * copies["nearest"]["mean_real"]
    )


def test_wrong_labels_lower_the_agreement_and_the_score(digits, shipped):
    train, test = digits
    some = train[torch.arange(0, len(train), 6)]
    wrong = ImageData(
        some.images, (some.labels + (torch.arange(len(some)) % 2)) % 10, levels=17
    )
    right, lied = (
        evaluate_run(shipped, train, test, samples=x, cas=True) for x in (some, wrong)
    )
    assert right["agreement"] > 0.98 and abs(lied["agreement"] - 0.5) < 0.05
    assert (
        right["score"]["samples"] > 0.85
        and lied["score"]["samples"] < right["score"]["samples"] - 0.05
        and lied["score"]["real"] == right["score"]["real"]
    )


def test_without_held_out_images_one_half_stands_for_them(digits, shipped):
    train = digits[0][:400]
    found = evaluate_run(shipped, train, None, DrawConfig(DDIM(2)), n=150)
    assert (
        not found["held_out"]
        and found["reference"] == 200
        and found["n"] == 150
        and "nearest" not in found
        and "to 200 others" in table(found)
    )
    with pytest.raises(ValueError, match="at least 4"):
        evaluate_run(shipped, train[:3], n=2, classifier=classifier_for(train))


def test_labels_are_as_frequent_as_in_the_data():
    skewed = ImageData(
        torch.zeros(1000, 1, 8, 8, dtype=torch.uint8),
        torch.tensor([0] * 900 + [3] * 100),
    )
    labels = labels_like(skewed, small_run(num_classes=10), 4000, seed=1)
    assert (
        set(labels.tolist()) == {0, 3}
        and abs((labels == 3).double().mean() - 0.1) < 0.03
    )
    assert torch.equal(
        labels, labels_like(skewed, small_run(num_classes=10), 4000, seed=1)
    ) and not torch.equal(
        labels, labels_like(skewed, small_run(num_classes=10), 4000, seed=2)
    )
    assert labels_like(skewed, small_run(), 5) is None
    faces = ImageData(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), contexts=torch.eye(3))
    assert {
        tuple(row) for row in labels_like(faces, small_run(context_dim=3), 100).tolist()
    } == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}


def test_samples_have_the_levels_of_the_data_and_the_labels_that_were_requested(digits):
    train = digits[0]
    drawn = sampled(small_run(num_classes=10), train, DrawConfig(DDIM(2), batch=7), 30)
    assert (
        drawn.levels == 17
        and drawn.images.max() <= 16
        and torch.equal(drawn.labels, labels_like(train, small_run(num_classes=10), 30))
    )
    assert torch.equal(
        drawn.images,
        sampled(
            small_run(num_classes=10), train, DrawConfig(DDIM(2), batch=30), 30
        ).images,
    )


def test_the_same_figures_twice(digits):
    one, two = (
        evaluate_run(
            small_run(num_classes=10),
            *digits,
            DrawConfig(DDIM(2, eta=1.0)),
            n=40,
            bits=2,
        )
        for _ in range(2)
    )
    assert (
        one == two and len(one["bits"]["curve"]) == 19 and one["bits"]["levels"] == 17
    )


def test_which_classifier(digits, tmp_path):
    train, _ = digits
    assert classifier_for(train)[1]["name"] == "digits"
    # not the size that the shipped one knows
    other = ImageData(
        train.images[:300, :, :7, :7].contiguous(),
        train.labels[:300],
        levels=17,
        name="digits",
    )
    classifier, facts = classifier_for(other, tmp_path)
    assert (
        facts["name"] == "judge"
        and (tmp_path / "judge" / "weights.safetensors").is_file()
    )
    again, facts = classifier_for(other, tmp_path)
    assert facts["name"] == "judge" and all(
        torch.equal(a, b)
        for a, b in zip(classifier.state_dict().values(), again.state_dict().values())
    )
    assert classifier_for(other, None, str(tmp_path / "judge"))[1]["data"] == "digits"
    attributes = ImageData(
        train.images[:300],
        contexts=(train.labels[:300, None] == torch.arange(3)).float(),
        levels=17,
    )
    assert classifier_for(attributes)[0].outputs == 3


@pytest.mark.parametrize(
    "data, name, words",
    [
        (
            ImageData(torch.zeros(9, 1, 8, 8, dtype=torch.uint8), name="art"),
            None,
            "art has neither labels nor attributes",
        ),
        (
            ImageData(torch.zeros(9, 3, 8, 8, dtype=torch.uint8), name="art"),
            "digits",
            "3 channels, as art has, and digits is for 1",
        ),
        (
            ImageData(torch.zeros(9, 1, 8, 8, dtype=torch.uint8), name="art"),
            "inception",
            "inception is for 3 channels",
        ),
        (ImageData(torch.zeros(9, 1, 8, 8, dtype=torch.uint8)), "nobody", "nobody"),
    ],
)
def test_no_classifier(data, name, words):
    with pytest.raises(ValueError, match=words):
        classifier_for(data, name=name)


def test_bad_input(digits, shipped):
    with pytest.raises(ValueError, match="n must be at least 2, got 1"):
        evaluate_run(shipped, *digits, n=1)
    with pytest.raises(ValueError, match="cas needs samples with labels"):
        evaluate_run(small_run(), *digits, DrawConfig(DDIM(2)), n=20, cas=True)


def test_inception_sees_images_of_any_size(monkeypatch):
    "With random weights in place of those that would be fetched."
    import torch_fidelity.feature_extractor_inceptionv3 as theirs

    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(
        theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_, **__: None
    )
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    classifier, facts = classifier_for(
        ImageData(torch.zeros(9, 3, 8, 8, dtype=torch.uint8), name="art"),
        name="inception",
    )
    found = classifier.features(x)
    assert (
        isinstance(classifier, Inception)
        and facts == {"name": "inception"}
        and found.shape == (2, 2048)
        and found.isfinite().all()
        and (found[0] != found[1]).any()
    )


def test_all_of_it_runs_on_the_device(digits, monkeypatch):
    "Every part is given the same device, here a CPU with a number."
    seen = {}
    parts = {
        "features": report,
        "accuracy": report,
        "classifier_accuracy": report,
        "bits_per_dim": report,
        "classifier_for": report,
        "fit_classifier": report,
        "batches": Run,
    }

    def spied(name, place):
        measured = getattr(place, name)

        def call(*args, **options):
            given = inspect.signature(measured).bind(*args, **options).arguments
            seen.setdefault(name, set()).add(str(given.get("device")))
            return measured(*args, **options)

        monkeypatch.setattr(place, name, call)

    for name, place in parts.items():
        spied(name, place)
    train, test = (
        ImageData(data.images[:60], data.labels[:60], levels=17, name="plain")
        for data in digits
    )
    evaluate_run(
        small_run(num_classes=10),
        train,
        test,
        DrawConfig(DDIM(2), device="cpu:0"),
        n=20,
        bits=1,
        cas=True,
    )
    assert seen == dict.fromkeys(parts, {"cpu:0"})
