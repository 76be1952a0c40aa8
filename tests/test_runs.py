"""What a run leaves behind: whole files, whatever happens; nothing that can run code;
and one sentence for each kind of damage."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from book import ROOT
from strategies import images

from ddpm_lit import EPS, V, DynamicThreshold, UNet, UNetConfig, linear_schedule
from ddpm_lit import Run, RunFacts, TrainConfig, load_pretrained
from ddpm_lit.runs import append_log, checkpoints, read_checkpoint, read_log
from ddpm_lit.runs import trim_log, write_checkpoint
from ddpm_lit.storage import read_tensors, write_tensors

SCHEDULE = linear_schedule(20, 1e-3, 0.3)


def network(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(UNetConfig(4, 1, 8, (1,), 1, (), dropout=0.1))


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_training_that_is_killed_goes_on_to_the_same_bits(kills):
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests" / "crash.py"),
            str(kills),
            str(12 * kills),
            "1",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["reached"] == sorted(told["reached"]) and told["reached"][-1] > 0, (
        "no life lost what another had saved"
    )
    assert told["saving"] > kills / 2, (
        f"only {told['saving']} of {kills} kills fell into a save"
    )
    assert (
        told["killed"] == told["straight"]
        and told["log_is_whole"]
        and told["left"] == 2
    )


@pytest.mark.parametrize(
    "param, clip", [(EPS, (-1, 1)), (V, None), (V, DynamicThreshold(0.9, most=3.0))]
)
def test_a_run_comes_back(tmp_path, param, clip):
    model = network().eval()
    facts = RunFacts(data="noise", classes=("a", "b"), train=TrainConfig(steps=7))
    Run(model, SCHEDULE, param, clip, facts).save(tmp_path / "run")
    run = load_pretrained(tmp_path / "run")
    x, t = images(1, 2, 1, 4, 4, dtype=torch.float32), torch.tensor([1, 20])
    assert torch.equal(run.model(x, t), model(x, t)) and not run.model.training
    assert (
        run.param == param
        and run.clip == clip
        and torch.equal(run.schedule.alpha_bar, SCHEDULE.alpha_bar)
        and run.facts == facts
    )
    assert {p.suffix for p in (tmp_path / "run").iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize(
    "name, damage, says",
    [
        ("config.json", "{", "not JSON"),
        ("config.json", "[" * 100_000, "not JSON"),
        ("config.json", "[]", "a JSON object"),
        ("config.json", "{}", "format"),
        ("schedule.json", "[]", "a JSON object"),
        ("schedule.json", '{"alpha_bar": 1}', "no run"),
        ("schedule.json", '{"alpha_bar": [1, "x"]}', "no run"),
        ("schedule.json", '{"alpha_bar": [1.0, NaN]}', "no run"),
        ("weights.safetensors", "no tensors", "no safetensors file"),
        ("weights.safetensors", "", "no safetensors file"),
    ],
)
def test_broken_files_are_refused_in_a_sentence(tmp_path, name, damage, says):
    folder = Run(network(), SCHEDULE, EPS, (-1, 1)).save(tmp_path / "run")
    (folder / name).write_text(damage)
    with pytest.raises(ValueError, match=says) as refusal:
        load_pretrained(folder)
    assert str(folder) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(format=3), "format"),
        (dict(param="w"), "'w'"),
        (dict(clip=[1, -1]), "clip"),
        (dict(clip="wide"), "no run"),
        (dict(clip={"quantile": 2}), "quantile"),
        (dict(unet=None), "no run"),
        (dict(unet={"wings": 2}), "wings"),
        (dict(unet={"blocks": 10**9}), "more blocks"),
        (dict(unet={"channels": 10**15}), "no run"),
        (dict(unet={"channels": "8"}), "no run"),
        (dict(unet={"channels": 16, "attention": []}), "fit"),
        (dict(data=3), "data must be a text or None, got 3"),
        (dict(attributes="Smiling"), "attributes must be a list of names"),
        (dict(classes=["a", 1]), "classes must be a list of names"),
        (dict(final="perhaps"), "final must be one of auto, full, fast, none"),
        (dict(train=[]), "train must be a TrainConfig or None"),
        (dict(train={"steps": 0}), "steps must be an integer of at least 1, got 0"),
        (dict(noise="cosine"), "noise must be a dictionary or None"),
        (dict(step=1.5), "step must be a whole number or None, got 1.5"),
    ],
)
def test_hostile_settings_are_refused_in_a_sentence(tmp_path, change, says):
    folder = Run(network(), SCHEDULE, EPS, (-1, 1)).save(tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    if isinstance(change.get("unet"), dict):
        change = {"unet": config["unet"] | change["unet"]}
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=says) as refusal:
        load_pretrained(folder)
    assert str(folder) in str(refusal.value)


def test_what_a_later_version_says_is_left_out_with_a_warning(tmp_path):
    train = TrainConfig(steps=7)
    run = Run(network(), SCHEDULE, EPS, (-1, 1), RunFacts(train=train))
    path = run.save(tmp_path / "run") / "config.json"
    config = json.loads(path.read_text())
    config |= {"mood": 1, "train": config["train"] | {"luck": 2}}
    path.write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="has mood, train.luck, which this") as heard:
        assert load_pretrained(path.parent).facts == run.facts
    assert len(heard) == 1


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_model_that_comes_with_the_package_is_written_again_as_it_was(tmp_path, name):
    run = load_pretrained(name)
    folder = run.save(tmp_path / "run")
    shipped = ROOT / "ddpm_lit" / "weights" / name
    old, new = (
        json.loads((where / "config.json").read_text()) for where in (shipped, folder)
    )
    new["train"] = {key: new["train"][key] for key in old["train"]}
    assert {key: new[key] for key in old} == old
    fields = ["classes", "diffusers", "final", "start"]
    assert sorted(new.keys() - old.keys()) == fields
    old, new = ((where / "schedule.json").read_bytes() for where in (shipped, folder))
    assert old == new and (tmp_path / "run" / "weights.safetensors").exists()
    again = load_pretrained(folder)
    assert again.facts == run.facts and again.null_trained is True


def test_learned_variances_are_refused(tmp_path):
    folder, twice = (
        Run(network(), SCHEDULE, EPS, (-1, 1)).save(tmp_path / "run"),
        {
            name: torch.cat([x, x]) if name.startswith("conv_out") else x
            for name, x in network().state_dict().items()
        },
    )
    write_tensors(folder / "weights.safetensors", twice)
    with pytest.raises(ValueError, match="learned variances, which are not supported"):
        load_pretrained(folder)


def test_weights_of_whole_numbers_are_refused(tmp_path):
    folder, model = (
        Run(network(), SCHEDULE, EPS, (-1, 1)).save(tmp_path / "run"),
        network(),
    )
    write_tensors(
        folder / "weights.safetensors",
        {name: x.to(torch.int8) for name, x in model.state_dict().items()},
    )
    with pytest.raises(ValueError, match="floating-point"):
        load_pretrained(folder)


def test_the_newest_checkpoints_stay(tmp_path):
    for step in (1, 2, 30):
        write_checkpoint(
            tmp_path, step, {"w": torch.full((3,), float(step))}, {"fact": step}, keep=2
        )
    assert [p.stem for p in checkpoints(tmp_path)] == ["00000002", "00000030"]
    found = read_checkpoint(tmp_path)
    assert (
        found.step == found.facts["fact"] == 30
        and found.tensors["w"].tolist() == [30.0] * 3
    )
    write_checkpoint(tmp_path, 30, {"w": torch.zeros(3)}, {}, keep=1)
    assert [p.stem for p in checkpoints(tmp_path)] == ["00000030"] and read_checkpoint(
        tmp_path
    ).tensors["w"].sum() == 0, "the same step again replaces it"


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-1],
        lambda b: b"",
        lambda b: b"\x80" + b[1:],
        lambda b: b.replace(b'"step', b'"stop').replace(b'\\"step', b'\\"stop'),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, damage):
    for step in (1, 2):
        newest = write_checkpoint(tmp_path, step, {"w": torch.ones(3)}, {})
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(UserWarning, match="00000002.*going on from 00000001"):
        assert read_checkpoint(tmp_path).step == 1
    checkpoints(tmp_path)[0].unlink()
    with pytest.raises(ValueError, match="00000002"):
        read_checkpoint(tmp_path)


def test_no_checkpoints_is_said(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest.safetensors").touch()
    with pytest.raises(ValueError, match="folder must be a run with checkpoints"):
        read_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        write_checkpoint(tmp_path, 1, {}, {}, keep=0)


def test_facts_that_json_does_not_have_leave_the_old_file(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"w": torch.ones(1)}, {"good": 1})
    with pytest.raises(ValueError):
        write_tensors(
            tmp_path / "x.safetensors", {"w": torch.zeros(1)}, {"bad": math.nan}
        )
    assert (
        read_tensors(tmp_path / "x.safetensors")[1] == {"good": 1}
        and len(list(tmp_path.iterdir())) == 1
    )


def test_the_log_leaves_out_what_is_damaged(tmp_path):
    for step in (1, 2, 3):
        append_log(
            tmp_path,
            SimpleNamespace(
                step=step,
                loss=1.0,
                lr=0.1,
                grad_norm=math.inf,
                images_per_second=1.0,
                seconds=1.0,
                waited=0.0,
            ),
        )
    with open(tmp_path / "log.jsonl", "ab") as file:
        file.write(
            b'{"step": 3, "loss"}\n[1]}\n{"step": "4", "loss": 1.0}\n'
            b'\xff\xfe}\n{"step": 5, "lo'
        )
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3] and read_log(
        tmp_path
    )[0]["grad_norm"] is None
    trim_log(tmp_path, 2)
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 2 and read_log(
        tmp_path / "nowhere"
    ) == []


@pytest.mark.parametrize("name", ["no-such-run", "../..", "", "digits/../digits/x"])
def test_no_run_is_said(name):
    with pytest.raises(ValueError) as refusal:
        load_pretrained(name)
    assert "name_or_run" in str(refusal.value) or "missing" in str(refusal.value)
