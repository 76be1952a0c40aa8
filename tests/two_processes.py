"""A training in two processes, which talk by gloo: `torchrun --nproc_per_node 2
tests/two_processes.py FILE ACCUMULATE` writes its weights to FILE. (Not `accelerate
launch`: on CPUs it wants MPI.)"""

import sys
from pathlib import Path

import torch

from ddpm_lit import ImageData, TrainConfig, Trainer, UNet, UNetConfig, linear_schedule
from ddpm_lit.storage import write_tensors


def trained(accumulate: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    "Weights, their average, and losses, after ten steps in float64 without dropout."
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = UNet(
        UNetConfig(4, 1, 8, (1, 2), 1, (2,), dropout=0.0, num_classes=3)
    ).double()
    pixels = torch.Generator().manual_seed(0)
    data = ImageData(
        torch.randint(256, (30, 1, 5, 5), generator=pixels, dtype=torch.uint8),
        torch.randint(3, (30,), generator=pixels),
    )
    config = TrainConfig(
        steps=10,
        batch_size=12,
        accumulate=accumulate,
        lr=1e-3,
        warmup=0,
        flip=True,
        crop=1,
        label_drop=0.3,
        weighting="min-snr",
        seed=seed,
    )
    trainer = Trainer(model, linear_schedule(20, 1e-3, 0.3), data, config, device="cpu")
    losses = torch.tensor([record.loss for record in trainer.steps()])
    return (
        trainer.weights
        | {f"ema.{name}": x for name, x in trainer.ema.items()}
        | {"losses": losses}
    )


if __name__ == "__main__":
    made = trained(int(sys.argv[2]))
    assert torch.distributed.get_world_size() == 2
    if torch.distributed.get_rank() == 0:
        write_tensors(Path(sys.argv[1]), made)
