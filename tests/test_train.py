"""Training: the average of the weights, rates and weights of the times, precision, what
is drawn, what is refused."""

import math
import re

import pytest
import torch
from small import DATA, PICTURES, SCHEDULE, SMALL, network, run, same, trainer, weights
from torch.utils._python_dispatch import TorchDispatchMode

from ddpm_lit import DDIM, EPS, V, X0, ImageData, NoiseSchedule, RunFacts, TrainConfig
from ddpm_lit import Trainer, cosine_schedule, load_pretrained, min_snr_weight
from ddpm_lit import vlb_weight, zero_terminal_snr
from ddpm_lit.numbered import default_device, placed_model
from ddpm_lit.runs import checkpoints, read_checkpoint, read_log
from ddpm_lit.train import _Clock, _draw, auto_precision, batch_indices, ema_decay
from ddpm_lit.train import learning_rate, processes, time_weight


def drawn(training: Trainer) -> tuple:
    "What the first step is trained on."
    raw = next(training.batches.stored(0))
    return _draw(
        training.batches,
        0,
        raw,
        training.schedule.T,
        getattr(training.model, "null", None),
        training.learner.dtype,
    )


def test_the_average_is_the_closed_form():
    "θ̄_n = Σ_k (1 − d_k) Π_{j>k} d_j θ_k, with d_n = min(d, (1 + n)/(10 + n))."
    training = trainer()
    seen = [weights(training.model)]
    for _ in training.steps():
        seen.append(weights(training.model))
    decays = [min(0.9, (1 + n) / (10 + n)) for n in range(6)]
    shares = [math.prod(decays)] + [
        (1 - decays[k]) * math.prod(decays[k + 1 :]) for k in range(6)
    ]
    assert sum(shares) == pytest.approx(1)
    for name, averaged in weights(training.ema_model()).items():
        torch.testing.assert_close(
            averaged,
            sum(share * w[name] for share, w in zip(shares, seen)),
            rtol=1e-4,
            atol=1e-6,
        )
    assert any(
        (averaged - seen[-1][name]).abs().max() > 1e-4
        for name, averaged in weights(training.ema_model()).items()
    )


def test_rates():
    config = TrainConfig(**SMALL | dict(steps=100, warmup=10))
    assert [learning_rate(config, n) for n in (0, 4, 9, 50)] == pytest.approx(
        [1e-3, 5e-3, 1e-2, 1e-2]
    )
    assert learning_rate(
        TrainConfig(steps=100, lr=1e-2, warmup=0, lr_decay="linear"), 75
    ) == pytest.approx(0.25e-2)
    assert learning_rate(
        TrainConfig(steps=100, lr=1e-2, warmup=0, lr_decay="cosine"), 50
    ) == pytest.approx(0.5e-2)
    assert [ema_decay(TrainConfig(), n) for n in (0, 90, 10**7)] == pytest.approx(
        [0.1, 0.91, 0.9999]
    )


def test_training_depends_on_the_seed_and_on_nothing_else():
    def losses(seed):
        torch.manual_seed(torch.seed() % 1000)  # whatever the global generator holds
        training = Trainer(
            network(),
            SCHEDULE,
            DATA,
            TrainConfig(**SMALL | dict(seed=seed)),
            device="cpu",
        )
        return [record.loss for record in training.steps()]

    assert losses(3) == losses(3) != losses(4)


@pytest.mark.parametrize("param", [EPS, X0, V], ids=lambda p: p.name)
def test_training_learns(param):
    config = TrainConfig(steps=60, batch_size=24, lr=1e-2, warmup=5, seed=0)
    training = Trainer(
        network(),
        SCHEDULE,
        torch.full((24, 1, 4, 4), 0.5),
        config,
        param=param,
        device="cpu",
    )
    losses = [record.loss for record in training.steps()]
    first, last = sum(losses[:5]) / 5, sum(losses[-10:]) / 10
    assert last < 0.7 * first


def test_the_cut_and_the_mirror():
    "Every window of an image occurs, mirrored and not, and nothing else."
    picture = ImageData(torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3))
    training = Trainer(
        network(),
        SCHEDULE,
        picture,
        TrainConfig(**SMALL | dict(batch_size=400, flip=True, crop=1)),
        device="cpu",
    )
    x0, *_ = drawn(training)
    seen = {
        tuple(image.flatten().tolist())
        for image in ((x0 * 255 + 255) / 2).round().int()
    }
    windows = picture.images[0, 0].unfold(0, 2, 1).unfold(1, 2, 1).reshape(4, 2, 2)
    assert seen == {tuple(w.flatten().tolist()) for w in (*windows, *windows.flip(-1))}


def test_labels_and_contexts_are_dropped_each_for_itself():
    contexts = torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    for options, data, none in (
        (dict(num_classes=3), PICTURES, lambda y: y == 3),
        (
            dict(context_dim=2),
            ImageData(PICTURES.images, contexts=contexts),
            lambda y: y.isnan().all(1),
        ),
    ):
        training = Trainer(
            network(**options),
            SCHEDULE,
            data,
            TrainConfig(**SMALL | dict(batch_size=1000, label_drop=0.3, crop=2)),
            device="cpu",
        )
        _, y, *_ = drawn(training)
        rows = training.batches.rows(0, "cpu")
        assert 0.25 < none(y).float().mean() < 0.35 and torch.equal(
            y[~none(y)], training.y[rows][~none(y)]
        )
        assert run(training, 2)


def test_the_average_is_kept_apart_and_in_float32():
    training = Trainer(
        network().bfloat16(),
        SCHEDULE,
        DATA,
        TrainConfig(**SMALL | dict(precision="bf16")),
        device="cpu",
    )
    run(training)
    raw = weights(training.model)
    averaged = training.ema_model()
    assert all(x.dtype == torch.float32 for x in training.ema.values()) and all(
        torch.equal(p, raw[name]) for name, p in training.model.named_parameters()
    )
    assert any(not torch.equal(p, raw[name]) for name, p in averaged.named_parameters())


@pytest.mark.parametrize(
    "precision, dtype",
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("auto", None)],
)
def test_the_network_runs_in_the_precision_and_the_loss_in_float32(precision, dtype):
    training, seen = (
        Trainer(
            network(),
            SCHEDULE,
            DATA,
            TrainConfig(**SMALL | dict(precision=precision)),
            device="cpu",
        ),
        [],
    )
    training.model.conv_out.register_forward_hook(
        lambda module, given, answer: seen.append(answer.dtype)
    )
    record = next(training.steps())
    auto = (
        torch.bfloat16
        if auto_precision(torch.device("cpu")) == "bf16"
        else torch.float32
    )
    assert (
        seen == [dtype or auto]
        and record.loss_tensor.dtype == torch.float32
        and all(p.dtype == torch.float32 for p in training.weights.values())
    )


def test_bf16_learns_what_float32_learns():
    losses = {
        precision: run(
            Trainer(
                network(),
                SCHEDULE,
                torch.full((24, 1, 4, 4), 0.5),
                TrainConfig(**SMALL | dict(steps=60, precision=precision)),
                param=V,
                device="cpu",
            )
        )
        for precision in ("fp32", "bf16")
    }
    late = {precision: sum(loss[-20:]) / 20 for precision, loss in losses.items()}
    assert (
        late["bf16"] == pytest.approx(late["fp32"], rel=0.1)
        and late["bf16"] < 0.5 * losses["bf16"][0]
        and losses["bf16"] != losses["fp32"]
    )


@pytest.mark.parametrize(
    "schedule, param",
    [
        (SCHEDULE, EPS),
        (SCHEDULE, V),
        (zero_terminal_snr(SCHEDULE), X0),
        (zero_terminal_snr(SCHEDULE), V),
    ],
    ids=lambda p: getattr(p, "name", ""),
)
def test_weights_of_the_times(schedule, param):
    t, snr = torch.arange(1, 21), schedule.snr[1:]
    weight = lambda name: time_weight(TrainConfig(weighting=name), schedule, t, param)
    # an error of x_0 in units of the error of eps, x_0 or v
    per_x0 = {EPS: 1 / snr, X0: torch.ones(20), V: 1 / (1 + snr)}[param]
    assert weight("simple") is None
    torch.testing.assert_close(weight("snr"), snr * per_x0.double())
    torch.testing.assert_close(weight("min-snr"), min_snr_weight(schedule, t, param))
    torch.testing.assert_close(weight("vlb"), 20 * vlb_weight(schedule, t, param))
    assert (weight("snr") >= weight("min-snr")).all() and (
        weight("snr") > weight("min-snr")
    ).any()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    "It names step, rate and last good checkpoint, and saves nothing."
    training = Trainer(
        network(), SCHEDULE, DATA.clone(), TrainConfig(**SMALL), device="cpu"
    )
    run(training, 2)
    good = training.save(tmp_path)
    training.data[:] = 1e25
    with pytest.raises(
        FloatingPointError,
        match=(
            r"step 3 is (inf|nan), at learning rate 0.01: the last good checkpoint is "
            r".*00000002"
        ),
    ):
        run(training)
    assert training.step == 2 and all(
        p.isfinite().all() for p in training.weights.values()
    )
    with pytest.raises(FloatingPointError):
        training.save(tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [good.name]
    with pytest.raises(FloatingPointError, match="no checkpoint was saved"):
        run(
            Trainer(
                network(),
                SCHEDULE,
                1e25 * DATA,
                TrainConfig(**SMALL),
                data_range=None,
                device="cpu",
            )
        )


def test_as_many_checkpoints_stay_as_were_asked_for(tmp_path):
    training = Trainer(
        network(), SCHEDULE, DATA, TrainConfig(**SMALL | dict(keep=3)), device="cpu"
    )
    for record in training.steps():
        training.save(tmp_path)
    assert [p.stem for p in sorted((tmp_path / "checkpoints").iterdir())] == [
        "00000004",
        "00000005",
        "00000006",
    ]


def test_what_is_no_resumption_is_refused(tmp_path):
    training = Trainer(
        network(num_classes=3),
        SCHEDULE,
        PICTURES,
        TrainConfig(**SMALL | dict(crop=2)),
        param=V,
        device="cpu",
    )
    run(training, 2)
    training.save(tmp_path)
    again = lambda **change: Trainer.restore(
        tmp_path,
        **dict(
            model=network(num_classes=3), schedule=SCHEDULE, data=PICTURES, device="cpu"
        )
        | change,
    )
    relabelled, repainted = (
        ImageData(PICTURES.images, PICTURES.labels.flip(0)),
        ImageData(255 - PICTURES.images, PICTURES.labels),
    )
    for change, says in (
        (dict(param=EPS), "param must be 'v'"),
        (dict(schedule=cosine_schedule(20)), "alpha_bar differs"),
        (dict(data=PICTURES[:29]), "data must be those"),
        (dict(data=relabelled), "data must be those"),
        (dict(data=repainted), "data must be those"),
        (dict(model=network(num_classes=4)), "does not fit the network: label.weight"),
        (dict(y=PICTURES.labels.flip(0)), "data must be those"),
    ):
        with pytest.raises(ValueError, match=says):
            again(**change)
    assert again().step == 2


def test_a_checkpoint_with_parts_missing_is_refused(tmp_path):
    from ddpm_lit.runs import write_checkpoint

    training = Trainer(network(), SCHEDULE, DATA, TrainConfig(**SMALL), device="cpu")
    run(training, 2)
    training.save(tmp_path)
    good = read_checkpoint(tmp_path)
    lost = {
        "ema.conv_in.bias": "averaged",
        "adam.conv_in.bias.exp_avg": "moments of conv_in.bias",
        "model.conv_in.bias": "conv_in.bias",
        "alpha_bar": "alpha_bar",
    }
    for name, says in lost.items():
        write_checkpoint(
            tmp_path,
            2,
            {key: x for key, x in good.tensors.items() if key != name},
            good.facts,
        )
        with pytest.raises(ValueError, match=says):
            Trainer.restore(tmp_path, network(), SCHEDULE, DATA, device="cpu")
    for change in (
        dict(config={"stride": 3}),
        dict(param="w"),
        dict(seconds="long"),
        dict(scaler=None),
    ):
        write_checkpoint(tmp_path, 2, good.tensors, good.facts | change)
        with pytest.raises(ValueError, match="no checkpoint that can be read"):
            Trainer.restore(tmp_path, network(), SCHEDULE, DATA, device="cpu")


# On a GPU, as far as that can be tried without one (test_gpu.py has the rest)


class Queue:
    """A device that works behind a program that runs ahead: the times of both, in
    seconds."""

    def __init__(self):
        self.program = self.device = 0.0

    def work(self, queueing: float, taking: float) -> None:
        self.program += queueing
        self.device = max(self.device, self.program) + taking

    def Event(self, enable_timing: bool):
        queue = self

        class Mark:
            def record(self, stream):
                self.time = queue.device = max(queue.device, queue.program)

            def query(self) -> bool:
                return self.time <= queue.program

            def synchronize(self) -> None:
                queue.program = max(queue.program, self.time)

            def elapsed_time(self, other) -> float:
                return 1000 * (other.time - self.time)

        return Mark()


@pytest.mark.parametrize(
    "loading, seconds, waited", [(0.001, 3.006, 0.001), (0.2, 6.25, 3.1)]
)
def test_the_clock_of_a_device_that_is_behind(monkeypatch, loading, seconds, waited):
    "Steps are queued in 5 ms and take 100; images that come in time cost nothing."
    queue = Queue()
    monkeypatch.setattr(torch.cuda, "Event", queue.Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    clock = _Clock(torch.device("cuda"))
    for n in range(30):
        began = clock.mark()
        queue.program += loading
        fed = clock.mark()
        queue.work(0.005, 0.1)
        clock.add(began, fed, clock.mark())
        assert clock.seconds <= queue.program + 1e-9
    assert clock.steps < 30
    clock.settle()
    assert clock.steps == 30 and queue.program == pytest.approx(queue.device)
    assert (clock.seconds, clock.waited) == pytest.approx((seconds, waited))


class Hungry(torch.nn.Module):
    "Finds no memory for more than `images` at a time."

    def __init__(self, images: int):
        super().__init__()
        self.images = images
        self.factor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        if len(x) > self.images:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return self.factor * x


def hungry(images: int, batch_size: int, accumulate: int) -> Trainer:
    config = TrainConfig(**SMALL | dict(batch_size=batch_size, accumulate=accumulate))
    return Trainer(Hungry(images), SCHEDULE, DATA, config, device="cpu")


@pytest.mark.parametrize(
    "batch, parts, images, says",
    [
        (8, 1, 4, "got 8: 8 images at a time do .* batch_size = 4, .* accumulate = 2"),
        (12, 2, 4, "got 12: 6 images at a time .* batch_size = 6, .* accumulate = 4"),
        (15, 3, 2, "got 15: 5 images at a time .* batch_size = 6, .* accumulate = 15"),
        (4, 4, 0, "got 4: the network and a single image do not fit .* a smaller"),
    ],
)
def test_too_large_a_batch_is_one_sentence(batch, parts, images, says):
    training = hungry(images, batch, parts)
    with pytest.raises(ValueError, match="^batch_size must be smaller, " + says) as e:
        run(training)
    assert e.value.__suppress_context__ and training.step == 0
    assert not torch.is_autocast_enabled("cpu")
    if images:  # what is proposed fits
        number = lambda name: int(re.search(rf"{name} = (\d+)", str(e.value))[1])
        assert run(hungry(images, number("batch_size"), parts))
        assert run(hungry(images, batch, number("accumulate")))


class Casts(TorchDispatchMode):
    "Notes which weights are cast to another type."

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op is torch.ops.aten._to_copy.default and args[0].is_leaf:
            self.shapes += [args[0].shape] if args[0].requires_grad else []
        return op(*args, **(kwargs or {}))


def test_the_weights_are_cast_once_for_all_parts():
    counts = []
    for parts in (1, 4):
        training = trainer(precision="bf16", accumulate=parts)
        with Casts() as casts:
            run(training, 1)
        counts.append(len(casts.shapes))
    assert counts[0] == counts[1] > 5


def test_the_order_of_images_can_be_had_on_any_device():
    assert batch_indices(3, 5, 8, 13, device="meta").shape == (8,)
    assert batch_indices(3, 5, 8, 13).device.type == "cpu"


@pytest.mark.parametrize(
    "call, names",
    [
        (lambda: TrainConfig(steps=0), ["steps", "0", "1"]),
        (lambda: TrainConfig(lr=0), ["lr", "0", "(0, 1)"]),
        (lambda: TrainConfig(ema_decay=1.0), ["ema_decay", "1.0", "[0, 1)"]),
        (lambda: TrainConfig(precision="fp8"), ["precision", "fp8", "bf16"]),
        (lambda: TrainConfig(accumulate=0), ["accumulate", "0", "1"]),
        (lambda: TrainConfig(keep=0), ["keep", "0", "1"]),
        (lambda: TrainConfig(crop=-1), ["crop", "-1", "0"]),
        (lambda: TrainConfig(workers=1.5), ["workers", "1.5"]),
        (
            lambda: TrainConfig(weighting="snr5"),
            ["weighting", "snr5", "min-snr", "vlb"],
        ),
        (lambda: TrainConfig(compile="yes"), ["compile", "yes"]),
        (
            lambda: TrainConfig(compile_mode="quick"),
            ["compile_mode", "quick", "reduce-overhead"],
        ),
        (
            lambda: Trainer(network(), SCHEDULE, 2 * DATA.abs() + 0.5),
            ["data", "-1", "1"],
        ),
        (
            lambda: Trainer(
                network(), SCHEDULE, torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
            ),
            ["data", "uint8"],
        ),
        (
            lambda: Trainer(network(), NoiseSchedule([1.0, 0.5, 0.0]), DATA),
            ["param", "V", "X0"],
        ),
        (lambda: Trainer(network(), SCHEDULE, DATA.numpy()), ["data", "ndarray"]),
        (
            lambda: Trainer(network(), SCHEDULE, DATA, TrainConfig(crop=4)),
            ["crop", "4", "(24, 1, 4, 4)"],
        ),
        (
            lambda: Trainer(
                network(), SCHEDULE, DATA, TrainConfig(batch_size=8, accumulate=3)
            ),
            ["batch_size", "accumulate = 3", "8"],
        ),
        (
            lambda: Trainer(
                network(), SCHEDULE, DATA, y=torch.zeros(24, dtype=torch.int64)
            ),
            ["y", "None", "labels"],
        ),
        (
            lambda: Trainer(network(num_classes=3), SCHEDULE, DATA),
            ["y", "num_classes = 3"],
        ),
        (
            lambda: Trainer(network(context_dim=3), SCHEDULE, PICTURES),
            ["y", "context_dim = 3"],
        ),
        (
            lambda: Trainer(
                network(num_classes=3),
                SCHEDULE,
                DATA,
                y=torch.zeros(23, dtype=torch.int64),
            ),
            ["y", "24", "23"],
        ),
        (
            lambda: Trainer(
                network(num_classes=3), SCHEDULE, DATA, y=torch.full((24,), 3)
            ),
            ["y", "0..2", "3"],
        ),
        (
            lambda: Trainer(network(num_classes=3), SCHEDULE, DATA, y=torch.zeros(24)),
            ["y", "int64", "float32"],
        ),
        (
            lambda: Trainer(
                network(context_dim=3), SCHEDULE, DATA, y=torch.zeros(24, 2)
            ),
            ["y", "(24, 3)", "(24, 2)"],
        ),
    ],
)
def test_mistakes_are_refused(call, names):
    with pytest.raises(ValueError) as refusal:
        call()
    assert all(name in str(refusal.value) for name in names), str(refusal.value)


# A training that leaves a folder


def fitted(folder, net=None, data=DATA, stop_at=None, **options):
    "A trainer, what `fit` returned, and what its hooks were told."
    every = dict(checkpoint_every=2, sample_every=4)
    training = Trainer(
        net or network(),
        SCHEDULE,
        data,
        TrainConfig(**SMALL | every | options),
        device="cpu",
    )
    told = dict(watched=[], logged=[], shown=[])

    def watch(steps):
        for record in steps:
            told["watched"].append(record.step)
            yield record

    left = training.fit(
        folder,
        RunFacts(data="noise"),
        watch=watch,
        stop=lambda: training.step == stop_at,
        on_record=lambda record: told["logged"].append(record.loss),
        on_samples=lambda x, step: told["shown"].append((tuple(x.shape), step)),
    )
    return training, left, told


def test_fit_leaves_a_run(tmp_path):
    training, left, told = fitted(tmp_path)
    plain = trainer()
    losses = run(plain)
    assert told["watched"] == [1, 2, 3, 4, 5, 6] and told["logged"] == losses
    assert [line["loss"] for line in read_log(tmp_path)] == losses
    assert told["shown"] == [((64, 1, 4, 4), 4)]
    assert [path.name for path in (tmp_path / "samples").iterdir()] == [
        "step-0000004.png"
    ]
    assert [path.stem for path in checkpoints(tmp_path)] == ["00000004", "00000006"]
    assert training.saved == checkpoints(tmp_path)[-1]
    kept = load_pretrained(tmp_path)
    for other in (kept, training.run(left.facts)):
        assert torch.equal(other.draw(3, DDIM(5)), left.draw(3, DDIM(5)))
        assert other.facts == left.facts
    averages = weights(plain.ema_model())
    assert all(torch.equal(p, averages[n]) for n, p in weights(left.model).items())
    facts = left.facts
    assert (facts.data, facts.step, facts.train) == ("noise", 6, training.config)
    assert facts.made["device"] == "cpu" and left.clip == (-1, 1)


def test_fit_stops_where_it_is_asked_and_goes_on(tmp_path):
    whole, straight, _ = fitted(tmp_path / "whole")
    stopped, left, told = fitted(tmp_path / "run", stop_at=3)
    kept = load_pretrained(tmp_path / "run")
    assert stopped.step == left.facts.step == kept.facts.step == 3
    assert told["watched"] == [1, 2, 3] and not told["shown"]
    assert read_checkpoint(tmp_path / "run").step == 3
    again = Trainer.restore(tmp_path / "run", network(9), SCHEDULE, DATA, device="cpu")
    again.fit(tmp_path / "run")
    assert same(whole, again)
    logs = read_log(tmp_path / "whole"), read_log(tmp_path / "run")
    losses, others = ([line["loss"] for line in log] for log in logs)
    assert losses == others and len(losses) == 6


def test_fit_saves_before_it_trains_and_does_not_train_what_it_cannot_keep(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match="cannot write"):
        fitted(tmp_path / "run")
    training = Trainer(Wrapped(), SCHEDULE, DATA, TrainConfig(**SMALL), device="cpu")
    with pytest.raises(ValueError, match="model must be a UNet.*got Wrapped"):
        training.fit(tmp_path / "other")
    assert training.step == 0 and not (tmp_path / "other").exists()


class Wrapped(torch.nn.Module):
    "A network that is no UNet."

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x, t):
        return self.inner(x, t)


def test_labels_are_left_alone_by_a_network_that_is_told_nothing(tmp_path):
    small, names = PICTURES.images[..., :4, :4], ("a", "b", "c")
    some = ImageData(small, PICTURES.labels, names=names)
    *_, told = fitted(tmp_path / "run", data=some, steps=4)
    _, left, _ = fitted(tmp_path / "told", network(num_classes=3), some, steps=4)
    plain = load_pretrained(tmp_path / "run")
    assert plain.facts.classes == () and left.facts.classes == ("a", "b", "c")
    assert plain.draw(2, DDIM(3)).shape == left.draw(2, DDIM(3), labels=1).shape
    assert told["shown"] == [((64, 1, 4, 4), 4)]


def test_one_default_device(monkeypatch):
    assert processes().device.type == default_device().type == trainer().device.type
    for cuda, mps, best in ((1, 1, "cuda"), (0, 1, "mps"), (0, 0, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
        assert default_device() == torch.device(best)


def test_any_network_is_placed_in_a_copy():
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Flatten())
    there = placed_model(net, "cpu")
    assert type(there) is type(net) and there is not net
    assert there[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[0].weight.is_contiguous() and placed_model(there, "cpu") is there
    flat = torch.nn.Linear(2, 2)
    assert placed_model(flat, "cpu") is flat
