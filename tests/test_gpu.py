"""What must hold on one CUDA device: `pytest -m gpu tests/test_gpu.py`.

Skipped where there is none. `DDPM_LIT_GPU_TESTS=cpu` rehearses the same tests on the
CPU, except those that only a GPU can fail."""

import math
import os
import time
from contextlib import contextmanager
from itertools import islice

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts

import pytest
import torch
from small import PICTURES, same, weights
from torch import nn

from ddpm_lit import DDIM, DDPM, Denoiser, DrawConfig, V, DPMSolver, ImageData, Run
from ddpm_lit import RunFacts
from ddpm_lit import TrainConfig, Trainer, UNet, UNetConfig, bits_per_dim
from ddpm_lit import cosine_schedule, evaluate_run, linear_schedule, load_images
from ddpm_lit import load_pretrained, sample, save_image
from ddpm_lit.forward import keyed_generator
from ddpm_lit.numbered import default_device, numbered_noise
from ddpm_lit.train import _draw
from ddpm_lit.unet import Attention, Block, Norm

REHEARSED = os.environ.get("DDPM_LIT_GPU_TESTS") == "cpu"
GPU = torch.cuda.is_available() and not REHEARSED
DEVICE = torch.device("cuda" if GPU else "cpu")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (GPU or REHEARSED), reason="no CUDA device"),
]
only_gpu = pytest.mark.skipif(not GPU, reason="a rehearsal on the CPU cannot fail here")

SCHEDULE = linear_schedule(20, 1e-3, 0.3)
SHAPE = UNetConfig(8, 1, 16, (1, 2), 1, (4,), dropout=0.0)
GREY = torch.full((24, 1, 8, 8), 0.5)
SMALL = dict(steps=8, batch_size=8, lr=1e-2, warmup=2, ema_decay=0.9, seed=3)
SMALL |= dict(precision="fp32")


@pytest.fixture(autouse=True)
def exact():
    "Products of float32 in all their digits, whatever is the default."
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    cudnn.allow_tf32 = products.allow_tf32 = False
    yield
    cudnn.allow_tf32, products.allow_tf32 = before


@contextmanager
def reproducible():
    "Sums in one order. It may warn where it cannot keep the promise."
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


def network(seed: int = 0, **options) -> UNet:
    torch.manual_seed(seed)
    return UNet(UNetConfig(**vars(SHAPE) | options))


def noisy(**options) -> UNet:
    "With random weights everywhere: zeros would hide what is computed."
    net = network(**options)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.1)
    return net.eval()


def trainer(model: nn.Module | None = None, data=GREY, **options) -> Trainer:
    config = TrainConfig(**SMALL | options)
    return Trainer(model or network(), SCHEDULE, data, config, param=V, device=DEVICE)


def losses(training: Trainer, n: int | None = None) -> list[float]:
    read = [record.loss_tensor for record in islice(training.steps(), n)]
    return torch.stack(read).tolist()


def drawn(training: Trainer, n: int = 0) -> list[torch.Tensor]:
    "What step n + 1 is trained on."
    raw = next(training.batches.stored(n))
    null = getattr(training.model, "null", None)
    batch = _draw(training.batches, n, raw, SCHEDULE.T, null, torch.float32)
    return [x for x in batch if x is not None]


# A step


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16", "auto"])
def test_a_network_learns(precision):
    training = trainer(precision=precision, steps=60, batch_size=24, warmup=5)
    seen = losses(training)
    assert all(map(math.isfinite, seen)) and sum(seen[-10:]) < 0.4 * sum(seen[:10])


@pytest.mark.parametrize(
    "options",
    [dict(precision="bf16"), dict(compile_mode="reduce-overhead", accumulate=2)],
    ids=["default", "graphs"],
)
def test_a_compiled_network_learns_the_same(options):
    torch._dynamo.reset()
    options = dict(steps=30, batch_size=24, warmup=5, **options)
    # on a CPU, C++ is compiled, which takes minutes for a larger network
    shape = {} if GPU else dict(channels=8, multipliers=(1,), attention=())
    plain = trainer(network(**shape), **options)
    quick = trainer(network(**shape), compile=True, **options)
    slow, fast = losses(plain), losses(quick)
    assert sum(fast[-10:]) < 0.5 * sum(fast[:10])
    half = options.get("precision") == "bf16"
    assert fast[:3] == pytest.approx(slow[:3], rel=0.05 if half else 1e-3)
    assert sum(fast[-10:]) == pytest.approx(sum(slow[-10:]), rel=0.2)
    assert quick.ema_model().state_dict().keys() == plain.model.state_dict().keys()


@only_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_waits_for_nothing(precision):
    "Any call that waits for the GPU is an error, for twenty steps and several epochs."
    options = dict(steps=200, crop=2, flip=True, label_drop=0.3, weighting="min-snr")
    data = ImageData(PICTURES.images, PICTURES.labels)
    net = network(image_size=4, attention=(), num_classes=3, dropout=0.1)
    training = trainer(net, data, precision=precision, accumulate=2, **options)
    steps = training.steps()
    for _ in islice(steps, 5):
        pass
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in islice(steps, 20):
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert training.step == 25


def test_settings_are_put_back():
    "What a step sets for itself is not there between steps, nor after an error."
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    read = lambda: (cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32)
    training = trainer(precision="tf32", steps=3)
    before, state = read(), torch.get_rng_state()
    for record in training.steps():
        assert read() == before and not torch.is_autocast_enabled(DEVICE.type)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="memory"):
        losses(trainer(Hungry(), steps=1))
    assert read() == before


class Slow(nn.Module):
    "Takes a hundredth of a second, on a GPU there and not in the program."

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        if GPU:
            torch.cuda._sleep(20_000_000)
        else:
            time.sleep(0.01)
        return self.factor * x


def test_times_are_those_of_the_device():
    training = trainer(Slow(), steps=40)
    steps = training.steps()
    next(steps)
    started, before = time.perf_counter(), training.seconds
    records = list(steps)
    passed = time.perf_counter() - started
    assert training.seconds - before == pytest.approx(passed, rel=0.3)
    assert records[-1].seconds == training.seconds and records[-1].waited < 0.2
    speed = records[-1].images_per_second
    assert speed == pytest.approx(40 * 8 / training.seconds, rel=0.3)


class Hungry(nn.Module):
    "Finds no memory."

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(()))

    def forward(self, x, t):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")


def test_too_large_a_batch_is_one_sentence():
    with pytest.raises(ValueError, match="batch_size must be smaller, got 8.*try") as e:
        losses(trainer(Hungry(), steps=1))
    assert "batch_size = 4" in str(e.value) and "accumulate = 2" in str(e.value)


@only_gpu
def test_too_large_a_batch_for_this_memory():
    training = trainer(network(channels=64), steps=1, batch_size=4096)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.005)
    try:
        with pytest.raises(ValueError, match="4096 images at a time.*accumulate = 2"):
            losses(training)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


# What must not change what is learned


def test_stopped_and_continued_is_the_same(tmp_path):
    options = dict(steps=12, accumulate=2)
    make = lambda: network(dropout=0.1, num_classes=3, image_size=4, attention=())
    with reproducible():
        whole, first = (trainer(make(), PICTURES, crop=2, **options) for _ in range(2))
        straight = losses(whole)
        assert losses(first, 5) == straight[:5]
        first.save(tmp_path)
        torch.manual_seed(12345)
        again = Trainer.restore(tmp_path, make(), SCHEDULE, PICTURES, device=DEVICE)
        assert losses(again) == straight[5:] and same(whole, again)


def test_the_average_is_the_closed_form():
    training = trainer(steps=6)
    seen = [weights(training.model)]
    for _ in training.steps():
        seen.append(weights(training.model))
    decays = [min(0.9, (1 + n) / (10 + n)) for n in range(6)]
    shares = [math.prod(decays)]
    shares += [(1 - decays[k]) * math.prod(decays[k + 1 :]) for k in range(6)]
    for name, average in weights(training.ema_model()).items():
        mixed = sum(share * w[name] for share, w in zip(shares, seen))
        torch.testing.assert_close(average, mixed, rtol=1e-4, atol=1e-6)


def first_gradients(training: Trainer) -> dict[str, torch.Tensor]:
    losses(training, 1)
    return {name: p.grad.clone() for name, p in training.weights.items()}


def assert_alike(these: dict, those: dict, within: float) -> None:
    whole = math.sqrt(sum(x.square().sum().item() for x in these.values()))
    for name, x in these.items():
        assert (x - those[name]).norm() < within * whole, name


def test_a_batch_in_parts_is_the_batch():
    options = dict(grad_clip=None, batch_size=24)
    whole = first_gradients(trainer(noisy(), **options))
    assert_alike(
        whole, first_gradients(trainer(noisy(), accumulate=4, **options)), 1e-4
    )
    other = first_gradients(trainer(noisy(), seed=4, **options))
    with pytest.raises(AssertionError):
        assert_alike(whole, other, 1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointing_changes_nothing(precision):
    "The same gradient, with dropout, and with parts that share what was cast."
    options = dict(grad_clip=None, accumulate=2, precision=precision)
    made = [noisy(dropout=0.5, checkpointing=again) for again in (False, True)]
    plain, again = (first_gradients(trainer(net, **options)) for net in made)
    assert_alike(plain, again, 1e-5 if precision == "fp32" else 1e-2)


# Data


def test_a_set_in_memory_lies_on_the_device():
    net = network(image_size=6, attention=(), num_classes=3)
    training = trainer(net, PICTURES)
    for x in (training.batches.images, training.batches.y, *drawn(training)):
        assert x.device.type == DEVICE.type
    rows = training.batches.rows(0, "cpu")
    images, _ = drawn(trainer(net, PICTURES, label_drop=0.0))[:2]
    torch.testing.assert_close(images.cpu(), PICTURES[rows].float())


def test_a_set_on_disk_is_the_same(tmp_path):
    for i, (image, label) in enumerate(zip(PICTURES.float(), PICTURES.labels)):
        save_image(image, tmp_path / str(label.item()) / f"{i:02d}.png")
    read = dict(channels=1, image_size=6)
    held, streamed = (load_images(tmp_path, **read, stream=s) for s in (False, True))
    make = lambda: network(image_size=4, attention=(), num_classes=3)
    options = dict(crop=2, flip=True, steps=6, batch_size=7)
    one = trainer(make(), held, **options)
    other = trainer(make(), streamed, workers=2, **options)
    for n in range(3):
        assert all(torch.equal(a, b) for a, b in zip(drawn(one, n), drawn(other, n)))
    assert losses(one) == pytest.approx(losses(other), rel=1e-4)


# The network


def test_channels_that_lie_side_by_side_stay_so():
    last, orders = torch.channels_last, {}
    net = noisy().to(DEVICE, memory_format=last)
    for name, layer in net.named_modules():
        if isinstance(layer, (Block, Attention, Norm, nn.Conv2d)):
            layer.register_forward_hook(
                lambda layer, args, out, name=name: orders.update(
                    {name: out.is_contiguous(memory_format=last)}
                )
            )
    x = torch.randn(2, 1, 8, 8).to(DEVICE)
    t = torch.tensor([1, 20], device=DEVICE)
    exact = net(x, t)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        half = net(x.to(memory_format=last), t)
    assert len(orders) > 20 and all(orders.values()), orders
    assert (half - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_normalisation_in_either_order(dtype):
    norm = Norm(4, 16).to(DEVICE)
    x = torch.randn(2, 16, 5, 6).to(DEVICE, dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 1, 16))
        norm.bias.copy_(torch.linspace(0, 2, 16))
    want = norm(x.float())
    with torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32):
        got = norm(x.contiguous(memory_format=torch.channels_last))
    assert got.is_contiguous(memory_format=torch.channels_last)
    within = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(got.float(), want, rtol=within, atol=within)


# Drawing and measuring

SAMPLERS = {
    "DDPM, posterior": DDPM(steps=20),
    "DDPM, beta": DDPM(steps=20, variance="beta"),
    "DDIM": DDIM(10),
    "DDIM, half": DDIM(10, eta=0.5),
    "DDIM, full": DDIM(10, eta=1.0),
    "DPM-Solver": DPMSolver(10),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_walk_ends_where_it_ends_on_the_cpu(name):
    net, ends = noisy(), []
    xT = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for device in ("cpu", DEVICE):
        own = [keyed_generator(0, 3, i) for i in range(4)]
        denoiser = Denoiser(net.to(device), SCHEDULE, clip=(-1, 1))
        with torch.no_grad():
            x = sample(denoiser, xT.to(device), SAMPLERS[name], generator=own)
        ends.append(x.cpu())
    assert (ends[0] - ends[1]).abs().max() < 1e-4
    assert ends[0].std() > 0.1


def small_run() -> Run:
    facts = RunFacts(train=TrainConfig())
    return Run(noisy(), cosine_schedule(20), V, (-1, 1), facts)


def test_an_image_depends_on_its_number_alone():
    run = small_run()
    whole, _ = numbered_noise(run.shape, range(6), 0, DEVICE)
    assert whole.device.type == DEVICE.type
    for batch in (1, 4):
        parts = [range(i, min(i + batch, 6)) for i in range(0, 6, batch)]
        noise = [numbered_noise(run.shape, some, 0, DEVICE)[0] for some in parts]
        assert torch.equal(torch.cat(noise), whole)
    options = dict(sampler=DDPM(steps=10), n=6, device=DEVICE)
    images = [
        torch.cat([*run.draw_batches(batch=b, **options)]).cpu() for b in (6, 4, 1)
    ]
    for other in images[1:]:
        assert (other - images[0]).abs().max() <= 1 / 255


def test_bits_are_those_of_the_cpu():
    images = ImageData(torch.full((4, 1, 8, 8), 200, dtype=torch.uint8)).float()
    cpu, here = (bits_per_dim(small_run(), images, device=d) for d in ("cpu", DEVICE))
    for name in ("prior", "kl", "reconstruction"):
        assert getattr(here, name) == pytest.approx(getattr(cpu, name), rel=1e-3)


def test_a_report_is_that_of_the_cpu():
    digits = load_images("digits")
    train, test = digits[:200], load_images("digits", split="test")[:100]
    each = [DrawConfig(DDIM(4), device=d) for d in ("cpu", str(DEVICE))]
    found = [
        evaluate_run(small_run(), train, test, config, n=60, bits=4) for config in each
    ]
    frechet = [each["distance"]["frechet"] for each in found]
    assert frechet[1] == pytest.approx(frechet[0], rel=1e-2)
    assert found[1]["nearest"]["mean"] == pytest.approx(
        found[0]["nearest"]["mean"], rel=1e-2
    )
    assert set(found[0]) == set(found[1])


def test_what_was_trained_here_goes_on_without_a_gpu(tmp_path):
    training = trainer(noisy())
    losses(training, 4)
    made = training.ema_model()
    Run(made, SCHEDULE, V, (-1, 1)).save(tmp_path / "run")
    run = load_pretrained(tmp_path / "run")
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 20])
    with torch.no_grad():
        here = made(x.to(DEVICE), t.to(DEVICE)).cpu()
        torch.testing.assert_close(run.model(x, t), here, rtol=1e-4, atol=1e-4)
    training.save(tmp_path)
    again = Trainer.restore(tmp_path, network(), SCHEDULE, GREY, device="cpu")
    assert again.step == 4 and len(losses(again)) == 4


def test_fit_draws_where_it_trains_and_the_run_is_read_anywhere(tmp_path):
    if GPU:
        assert default_device().type == Trainer(network(), SCHEDULE, GREY).device.type
    shown, training = [], trainer(noisy(), sample_every=8)
    left = training.fit(tmp_path, on_samples=lambda x, step: shown.append(x))
    assert next(left.model.parameters()).device.type == DEVICE.type
    there = left.draw(2, DDIM(5), device=DEVICE)
    here = load_pretrained(tmp_path).draw(2, DDIM(5), device="cpu")
    assert there.device == here.device == torch.device("cpu")
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)
    (grid,) = shown
    assert grid.shape == (64, 1, 8, 8) and grid.isfinite().all()
