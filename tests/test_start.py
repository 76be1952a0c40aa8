"""Fine-tuning: whatever the two networks are told, the new one begins as the old one
is; and the command begins, goes on and refuses accordingly."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import network

from ddpm_lit import V, cosine_schedule, linear_schedule, load_model, load_pretrained
from ddpm_lit import start_from, to_diffusers
from ddpm_lit.command.main import main
from ddpm_lit.command.recipes import read_train
from ddpm_lit.command.terminal import UsageError
from ddpm_lit.runs import Run, RunFacts, read_log
from ddpm_lit.storage import read_tensors

KINDS = {
    "nothing": {},
    "classes": dict(num_classes=3),
    "more classes": dict(num_classes=5),
    "context": dict(context_dim=2),
}
TINY = "--steps 6 --batch-size 8 --checkpoint-every 3 --device cpu --threads 1".split()


def moved(seed: int, **told):
    "A network no layer of which is at zero."
    model = network(seed, **told).eval().requires_grad_(False)
    for p in model.parameters():
        p.add_(0.05 * torch.randn_like(p))
    return model


def told(kind: str, B: int = 4):
    if kind == "nothing":
        return None
    return (
        torch.rand(B, 2)
        if kind == "context"
        else torch.arange(B) % KINDS[kind]["num_classes"]
    )


@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("new", KINDS)
def test_the_new_network_begins_as_the_old_one_is(old, new):
    ours, theirs = moved(1, **KINDS[new]), moved(0, **KINDS[old])
    before = {name: p.clone() for name, p in theirs.state_dict().items()}
    start_from(ours, Run(theirs, linear_schedule(20), V, (-1, 1)))
    x, t, y = torch.randn(4, 1, 4, 4), torch.tensor([1, 5, 10, 20]), told(new)
    torch.testing.assert_close(ours(x, t), theirs(x, t), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        ours(x, t, y), theirs(x, t, y if old == new else None), rtol=1e-5, atol=1e-5
    )
    assert all(torch.equal(p, before[name]) for name, p in theirs.state_dict().items())
    ours.conv_in.weight.zero_()  # the two share no memory
    assert torch.equal(theirs.conv_in.weight, before["conv_in.weight"])


def test_new_rows_learn_although_they_begin_at_zero():
    ours = network(1, num_classes=2)
    start_from(ours, Run(moved(0), linear_schedule(20), V, (-1, 1)))
    ours(
        torch.randn(3, 1, 4, 4), torch.tensor([1, 5, 10]), torch.tensor([0, 1, 2])
    ).square().sum().backward()
    assert (
        not ours.label.weight.detach().any()
        and (ours.label.weight.grad.norm(dim=1) > 0).all()
    )


def test_another_shape_is_refused_and_nothing_is_changed():
    run = load_pretrained("digits")
    for changed in (
        dict(channels=32),
        dict(heads=2),
        dict(conditioning="scale_shift"),
        dict(multipliers=(1, 1)),
    ):
        model = type(run.model)(replace(run.model.config, **changed))
        before = model.conv_in.weight.clone()
        with pytest.raises(
            ValueError, match=f"^{[*changed][0]} must be .*network to start from"
        ):
            start_from(model, run)
        assert torch.equal(model.conv_in.weight, before)


def test_a_model_is_found_wherever_it_lies(tmp_path):
    run = load_pretrained("digits")
    ours, theirs = (
        Run(run.model, run.schedule, run.param, run.clip).save(tmp_path / "ours"),
        to_diffusers(run, tmp_path / "theirs"),
    )
    for place in ("digits", ours, str(ours), theirs):
        found = load_model(place)
        assert found.param == run.param and torch.allclose(
            found.schedule.alpha_bar, run.schedule.alpha_bar, rtol=1e-3
        )
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                found.model.state_dict().values(),
                run.model.state_dict().values(),
                strict=True,
            )
        )
    for none in ("digit", tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError):
            load_model(none)


# %% The command


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    "A small network that is told nothing, in the format of diffusers."
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    run = load_pretrained("digits")
    to_diffusers(
        replace(
            run,
            schedule=linear_schedule(25),
            model=type(run.model)(replace(run.model.config, num_classes=None)),
        ),
        "theirs",
    )
    return "theirs"


def test_flags_come_from_the_model(theirs):
    args, preset = (
        read_train(["digits", "--from", theirs, "--steps", "7"]),
        read_train(["digits"]),
    )
    assert (
        (args.noise.schedule, args.noise.T, args.unet.num_classes, args.train.steps)
        == ("linear", 25, None, 7)
        != (preset.noise.schedule, preset.noise.T)
    )
    assert (
        args.train.lr == preset.train.lr
        and args.unet == load_model(theirs).model.config
    )
    assert (
        read_train(["digits", "--from", "digits"]).noise == read_train(["digits"]).noise
    )
    # the size is told again: it need not fit the network that a folder would have
    # without --from
    for told in (["--from", "digits"], ["--from=digits"]):
        assert read_train(["pictures", "--image-size", "8", *told]).unet == replace(
            read_train(["digits"]).unet, num_classes=10
        )
    assert (
        read_train(["digits", "--from", "digits"]).unet.num_classes == 10
        and read_train(
            ["digits", "--from", "digits", "--num-classes", "None"]
        ).unet.num_classes
        is None
    )


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--from nowhere", "no run folder 'nowhere'"),
        ("--from digits --schedule linear", "schedule must be cosine"),
        ("--from digits --T 50", "T must be 1000"),
        ("--from digits --param eps", "param must be v"),
    ],
)
def test_what_contradicts_the_model_is_refused(flags, said):
    with pytest.raises(UsageError, match=said):
        read_train(["digits", *flags.split()])


def test_a_schedule_without_flags_is_refused(tmp_path):
    run = load_pretrained("digits")
    folder = Run(
        run.model,
        cosine_schedule(1000, s=0.1),
        run.param,
        run.clip,
        RunFacts(noise={"schedule": "cosine", "T": 1000, "sigma": 3}),
    ).save(tmp_path / "run")
    with pytest.raises(UsageError, match="--from must have a schedule"):
        read_train(["digits", "--from", str(folder)])


def test_the_command_begins_with_the_weights_and_resumes_to_the_bit(theirs):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8)
    for i, image in enumerate(pixels):
        Path("pictures", "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(f"pictures/{'ab'[i % 2]}/{i}.png")
    for out in ("whole", "parts"):
        assert (
            main(
                [
                    "train",
                    "pictures",
                    "--from",
                    theirs,
                    "--num-classes",
                    "2",
                    "--out",
                    out,
                    "--keep",
                    "9",
                    *TINY,
                ]
            )
            == 0
        )
    first, x, t = (
        load_model(theirs).model,
        torch.randn(2, 1, 8, 8),
        torch.tensor([1, 20]),
    )
    begun = load_pretrained("parts").model
    begun.load_state_dict(
        {
            name.removeprefix("model."): p
            for name, p in read_tensors(Path("parts/checkpoints/00000000.safetensors"))[
                0
            ].items()
            if name.startswith("model.")
        }
    )
    torch.testing.assert_close(
        begun(x, t, torch.tensor([0, 1])), first(x, t), rtol=1e-5, atol=1e-5
    )
    Path("parts/checkpoints/00000006.safetensors").unlink()
    assert main(["resume", "parts", "--threads", "1", "--device", "cpu"]) == 0
    assert [line["loss"] for line in read_log("whole")] == [
        line["loss"] for line in read_log("parts")
    ]
    assert (
        Path("whole/weights.safetensors").read_bytes()
        == Path("parts/weights.safetensors").read_bytes()
    )
    assert json.loads(Path("parts/config.json").read_text())["start"] == theirs


def test_a_folder_of_diffusers_can_be_sampled_from(theirs):
    assert (
        main(
            [
                "sample",
                theirs,
                "--n",
                "4",
                "--steps",
                "5",
                "--out",
                "grid.png",
                "--device",
                "cpu",
            ]
        )
        == 0
        and Path("grid.png").is_file()
    )
    assert main(["evaluate", theirs]) != 0
