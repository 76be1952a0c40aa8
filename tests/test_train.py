"Training: the average of the weights, a run that was stopped and continued, and what a run leaves behind."
import json
import math
from itertools import islice

import pytest
import torch
from strategies import images

from ddpm_lit import EPS, V, X0, NoiseSchedule, TrainConfig, Trainer, UNet, UNetConfig, linear_schedule, load_pretrained
from ddpm_lit.train import ema_decay, learning_rate, save_run

SCHEDULE = linear_schedule(20, 1e-3, 0.3)
DATA = images(0, 24, 1, 4, 4, dtype=torch.float32).clamp(-1, 1)
SMALL = dict(steps=6, batch_size=8, lr=1e-2, warmup=2, ema_decay=0.9, seed=3)


def network(seed: int = 0, **options) -> UNet:
    torch.manual_seed(seed)
    return UNet(UNetConfig(4, 1, 8, (1,), 1, (), dropout=0.1, **options))


def trainer(**options) -> Trainer: return Trainer(network(), SCHEDULE, DATA, TrainConfig(**SMALL | options), device="cpu")


def weights(model) -> dict: return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_the_average_is_the_closed_form():
    "θ̄_n = Σ_k (1 − d_k) Π_{j>k} d_j θ_k, with d_n = min(d, (1 + n)/(10 + n))."
    training = trainer()
    seen = [weights(training.model)]
    for _ in training.steps(): seen.append(weights(training.model))
    decays = [min(0.9, (1 + n) / (10 + n)) for n in range(6)]
    shares = [math.prod(decays)] + [(1 - decays[k]) * math.prod(decays[k + 1:]) for k in range(6)]
    assert sum(shares) == pytest.approx(1)
    for name, averaged in weights(training.ema_model()).items():
        torch.testing.assert_close(averaged, sum(share * w[name] for share, w in zip(shares, seen)), rtol=1e-4, atol=1e-6)
    assert any((averaged - seen[-1][name]).abs().max() > 1e-4 for name, averaged in weights(training.ema_model()).items())


def test_rates():
    config = TrainConfig(**SMALL | dict(steps=100, warmup=10))
    assert [learning_rate(config, n) for n in (0, 4, 9, 50)] == pytest.approx([1e-3, 5e-3, 1e-2, 1e-2])
    assert learning_rate(TrainConfig(steps=100, lr=1e-2, warmup=0, lr_decay="linear"), 75) == pytest.approx(0.25e-2)
    assert learning_rate(TrainConfig(steps=100, lr=1e-2, warmup=0, lr_decay="cosine"), 50) == pytest.approx(0.5e-2)
    assert [ema_decay(TrainConfig(), n) for n in (0, 90, 10**7)] == pytest.approx([0.1, 0.91, 0.9999])


def test_stopped_and_continued_is_the_same_to_the_last_bit(tmp_path):
    whole = trainer()
    losses = [record.loss for record in whole.steps()]
    first = trainer()
    for _ in islice(first.steps(), 3): pass
    first.save(tmp_path)
    second = Trainer.restore(tmp_path, network(seed=9), SCHEDULE, DATA, device="cpu")
    assert second.step == 3 and [record.loss for record in second.steps()] == losses[3:]
    for mine, theirs in ((whole.model, second.model), (whole.ema_model(), second.ema_model())):
        assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), theirs.state_dict().values()))


def test_training_depends_on_the_seed_and_on_nothing_else():
    def losses(seed):
        torch.manual_seed(torch.seed() % 1000)  # whatever the global generator holds
        training = Trainer(network(), SCHEDULE, DATA, TrainConfig(**SMALL | dict(seed=seed)), device="cpu")
        return [record.loss for record in training.steps()]
    assert losses(3) == losses(3) != losses(4)


@pytest.mark.parametrize("param", [EPS, X0, V], ids=lambda p: p.name)
def test_training_learns(param):
    config = TrainConfig(steps=60, batch_size=24, lr=1e-2, warmup=5, seed=0)
    training = Trainer(network(), SCHEDULE, torch.full((24, 1, 4, 4), 0.5), config, param=param, device="cpu")
    losses = [record.loss for record in training.steps()]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:5]) * 2


@pytest.mark.parametrize("param, clip", [(EPS, (-1, 1)), (V, None)])
def test_a_run_comes_back(tmp_path, param, clip):
    model = network().eval()
    save_run(tmp_path / "run", model, SCHEDULE, param, clip, {"data": "noise"})
    run = load_pretrained(tmp_path / "run")
    x, t = images(1, 2, 1, 4, 4, dtype=torch.float32), torch.tensor([1, 20])
    assert torch.equal(run.model(x, t), model(x, t)) and not run.model.training
    assert run.param == param and run.clip == clip and torch.equal(run.schedule.alpha_bar, SCHEDULE.alpha_bar) and run.config["data"] == "noise"
    assert {p.suffix for p in (tmp_path / "run").iterdir()} == {".json", ".safetensors"}


def test_broken_runs_are_refused_in_a_sentence(tmp_path):
    folder = save_run(tmp_path / "run", network(), SCHEDULE, EPS, (-1, 1), {})
    for name, text in (("config.json", "{"), ("schedule.json", "[]"), ("weights.safetensors", "no tensors")):
        good = (folder / name).read_bytes()
        (folder / name).write_text(text)
        with pytest.raises(ValueError, match=name): load_pretrained(folder)
        (folder / name).write_bytes(good)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"unet": config["unet"] | {"channels": 16}}))
    with pytest.raises(ValueError, match="fit"): load_pretrained(folder)


@pytest.mark.parametrize("call, names", [
    (lambda: TrainConfig(steps=0), ["steps", "0", "1"]),
    (lambda: TrainConfig(lr=0), ["lr", "0", "(0, 1)"]),
    (lambda: TrainConfig(ema_decay=1.0), ["ema_decay", "1.0", "[0, 1)"]),
    (lambda: TrainConfig(precision="fp8"), ["precision", "fp8", "bf16"]),
    (lambda: Trainer(network(), SCHEDULE, 2 * DATA.abs() + 0.5), ["data", "-1", "1"]),
    (lambda: Trainer(network(), SCHEDULE, torch.zeros(3, 1, 4, 4, dtype=torch.uint8)), ["data", "uint8"]),
    (lambda: Trainer(network(), NoiseSchedule([1.0, 0.5, 0.0]), DATA), ["param", "V", "X0"]),
    (lambda: Trainer(network(), SCHEDULE, DATA, labels=torch.zeros(24, dtype=torch.int64)), ["labels", "classes"]),
    (lambda: Trainer(network(num_classes=3), SCHEDULE, DATA, labels=torch.full((24,), 3)), ["labels", "0..2", "3"]),
    (lambda: load_pretrained("no-such-run"), ["name_or_run", "no-such-run"]),
])
def test_mistakes_are_refused(call, names):
    with pytest.raises(ValueError) as refusal: call()
    assert all(name in str(refusal.value) for name in names), str(refusal.value)
