"A small network in training, for several test files."

from itertools import islice

import torch
from strategies import images

from ddpm_lit import ImageData, TrainConfig, Trainer, UNet, UNetConfig, linear_schedule

SCHEDULE = linear_schedule(20, 1e-3, 0.3)
DATA = images(0, 24, 1, 4, 4, dtype=torch.float32).clamp(-1, 1)
PICTURES = ImageData(
    torch.randint(
        256,
        (30, 1, 6, 6),
        generator=torch.Generator().manual_seed(0),
        dtype=torch.uint8,
    ),
    torch.arange(30) % 3,
)
SMALL = dict(
    steps=6, batch_size=8, lr=1e-2, warmup=2, ema_decay=0.9, seed=3, precision="fp32"
)


def network(seed: int = 0, **options) -> UNet:
    torch.manual_seed(seed)
    return UNet(UNetConfig(4, 1, 8, (1,), 1, (), dropout=0.1, **options))


def trainer(**options) -> Trainer:
    return Trainer(
        network(), SCHEDULE, DATA, TrainConfig(**SMALL | options), device="cpu"
    )


def weights(model) -> dict:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a: Trainer, b: Trainer) -> bool:
    "Weights, averages and Adam's moments, to the last bit."
    every = lambda x: [
        *x.model.state_dict().values(),
        *x.ema.values(),
        *(m for p in x.weights.values() for m in x.adam.state[p].values()),
    ]
    return all(torch.equal(p, q) for p, q in zip(every(a), every(b), strict=True))


def run(training: Trainer, n: int | None = None) -> list[float]:
    "Losses of the next n steps, or of all."
    return [record.loss for record in islice(training.steps(), n)]
