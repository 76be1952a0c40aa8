"""The drawings of the chain in nbs/images: `python benchmarks/chain.py`.

A digit that the shipped MNIST model draws, noised by the forward process. The times of
neighbours are drawn further apart than they are, or nobody would see a step."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import FancyArrowPatch

from ddpm_lit import draw_noise, load_pretrained, q_sample

IMAGES = Path(__file__).resolve().parents[1] / "nbs" / "images"
TIMES = {"x_0": 0, "x_{t-1}": 220, "x_t": 420, "x_T": 1000}
PLACES = {"x_0": 0.0, "x_{t-1}": 3.1, "x_t": 5.3, "x_T": 8.4}
DOWN, UP, GIVEN = "#2a6fb0", "#dd7f1e", "#2e8b72"


def digits() -> dict[str, torch.Tensor]:
    "One digit of the shipped model at the times of the drawing."
    run = load_pretrained("mnist")
    digit = run.draw(1, seed=4, labels=3, guidance=1.5)[0]
    noise = draw_noise(digit[None].shape, torch.Generator().manual_seed(1))
    schedule = run.schedule
    noised = {
        name: q_sample(schedule, digit[None], t, noise)[0, 0]
        for name, t in TIMES.items()
        if t
    }
    return {"x_0": digit[0], **noised}


def arrow(ax, start, end, label, colour, bend, **style):
    "An arrow between two places, with words in the middle of its bow."
    made = FancyArrowPatch(
        start,
        end,
        connectionstyle=f"arc3,rad={bend}",
        arrowstyle="-|>",
        mutation_scale=13,
        lw=1.5,
        color=colour,
        **style,
    )
    ax.add_patch(made)
    away = -bend * (end[0] - start[0]) / 2
    height = (start[1] + end[1]) / 2 + away + (0.32 if away >= 0 else -0.34)
    middle = (start[0] + end[0]) / 2
    ax.text(middle, height, label, color=colour, ha="center", va="center", fontsize=14)


def drawing(images, name, ways):
    with plt.style.context(["ddpm_lit.figures", {"mathtext.fontset": "cm"}]):
        fig, ax = plt.subplots(figsize=(7.6, 2.45))
        for label, x in PLACES.items():
            picture = images[label]
            ax.imshow(picture, extent=(x - 0.5, x + 0.5, -0.5, 0.5), vmin=-1, vmax=1)
            ax.text(x, -0.78, f"${label}$", ha="center", va="center", fontsize=15)
        for x in (1.55, 6.85):
            ax.text(x, 0, r"$\cdots$", ha="center", va="center", fontsize=17)
        ways(ax)
        ax.set(xlim=(-0.8, 9.2), ylim=(-1.75, 1.45), aspect="equal")
        ax.axis("off")
        fig.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
        plt.close(fig)


def both(ax):
    s, t = PLACES["x_{t-1}"], PLACES["x_t"]
    forward, reverse = r"$q(x_t \mid x_{t-1})$", r"$p_\theta(x_{t-1} \mid x_t)$"
    arrow(ax, (s + 0.1, 0.55), (t - 0.1, 0.55), forward, DOWN, -0.3)
    arrow(ax, (t - 0.25, -1.0), (s + 0.25, -1.0), reverse, UP, -0.3)


def posterior(ax):
    both(ax)
    start, end = PLACES["x_0"], PLACES["x_{t-1}"]
    label = r"$q(x_{t-1} \mid x_t, x_0)$"
    arrow(ax, (start + 0.1, 0.55), (end - 0.1, 0.55), label, GIVEN, -0.27, ls="--")
    t = PLACES["x_t"]
    arrow(ax, (t - 0.5, 0.0), (end + 0.55, 0.0), "", GIVEN, 0, ls="--")


if __name__ == "__main__":
    images = digits()
    drawing(images, "chain", both)
    drawing(images, "chain-posterior", posterior)
