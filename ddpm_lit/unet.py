"""The U-Net of the DDPM paper (Ho et al. 2020, appendix B) for any image size."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class UNetConfig:
    "The shape of a `UNet`; the defaults are the paper's CIFAR-10 network (35.7 million parameters)."

    image_size: int = 32  # height and width trained on; places the attention, other sizes work too
    in_channels: int = 3  # C of the images, and of the output
    channels: int = 128  # width of the first level; even, 4 or more (sine and cosine halves)
    multipliers: tuple[int, ...] = (1, 2, 2, 2)  # width of each level, times `channels`; one level per entry
    blocks: int = 2  # residual blocks per level going down; one more going up
    attention: tuple[int, ...] = (16,)  # level sizes with self-attention after each block; the middle always has it
    heads: int = 1  # attention heads; divides the width where there is attention
    dropout: float = 0.1  # inside the residual blocks; 0 <= dropout < 1
    num_classes: int | None = None  # K labels 0..K-1 and a learned null at K; None: unconditional

    def __post_init__(self):
        for name in ("multipliers", "attention"):  # lists, as JSON brings them, become tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("image_size", "in_channels", "blocks", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.channels < 4 or self.channels % 2:
            raise ValueError(f"channels must be even and at least 4, got {self.channels}.")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"multipliers must be one or more integers >= 1, got {self.multipliers}.")
        if not set(self.attention) <= set(self.sizes):
            raise ValueError(f"attention must name level sizes out of {self.sizes}, got {self.attention}.")
        for width in self.attention_widths:
            if width % self.heads:
                raise ValueError(f"heads must divide the width {width} of each level with attention, got {self.heads}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}.")
        if self.num_classes is not None and self.num_classes < 1:
            raise ValueError(f"num_classes must be None or at least 1, got {self.num_classes}.")

    @property
    def widths(self) -> tuple[int, ...]:
        "Channels of each level."
        return tuple(self.channels * m for m in self.multipliers)

    @property
    def sizes(self) -> tuple[int, ...]:
        "Image size at each level: halved and rounded up."
        return tuple(math.ceil(self.image_size / 2**i) for i in range(len(self.multipliers)))

    @property
    def attention_widths(self) -> tuple[int, ...]:
        "Widths at which there is attention: the chosen levels and the middle."
        return tuple(w for w, n in zip(self.widths, self.sizes) if n in self.attention) + self.widths[-1:]

    @property
    def groups(self) -> int:
        """Groups of every `GroupNorm`: the largest divisor of `channels` up to 32 that leaves two channels in a group.

        All widths are multiples of `channels`, so one number serves the whole network. A group of one channel would
        subtract the time embedding again, which is constant over the image."""
        return max(g for g in range(1, min(32, self.channels // 2) + 1) if self.channels % g == 0)


def time_embedding(
    t: torch.Tensor,  # (B,) int64, 1..T; the embedded number is t - 1, as in the published weights
    dim: int,  # even, 4 or more
) -> torch.Tensor:  # (B, dim) float32: sines, then cosines
    "Sinusoids with wavelengths from 2π to 10000·2π (Vaswani et al. 2017, section 3.5, with the scale of DDPM's code)."
    half = dim // 2
    frequencies = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half, device=t.device))
    angles = (t - 1).float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Attention(nn.Module):
    "Self-attention over all pixels, with a residual."

    def __init__(self, width: int, groups: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, C, H, W)
        h = self.norm(x).flatten(2).mT  # (B, HW, C)
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, HW, C / heads)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(h).mT.reshape(x.shape)


class Block(nn.Module):
    "A residual block that is told the time; attention may follow."

    def __init__(self, c_in: int, c_out: int, config: UNetConfig, attention: bool = False):
        super().__init__()
        self.norm1 = nn.GroupNorm(config.groups, c_in, eps=1e-6)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(4 * config.channels, c_out)
        self.norm2 = nn.GroupNorm(config.groups, c_out, eps=1e-6)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.attention = Attention(c_out, config.groups, config.heads) if attention else nn.Identity()

    def forward(
        self,
        x: torch.Tensor,  # (B, c_in, H, W)
        emb: torch.Tensor,  # (B, 4 * channels), after SiLU
    ) -> torch.Tensor:  # (B, c_out, H, W)
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(emb)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.attention(self.shortcut(x) + h)


class Downsample(nn.Conv2d):
    "Strided convolution, n -> ceil(n / 2): the paper pads right and below; an odd size needs both sides."

    def __init__(self, width: int):
        super().__init__(width, width, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, w = x.shape[-2:]
        return super().forward(F.pad(x, (w % 2, 1, h % 2, 1)))


class Upsample(nn.Conv2d):
    "Nearest neighbour to the size of the level above, then a convolution."

    def __init__(self, width: int):
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return super().forward(F.interpolate(x, size=size, mode="nearest"))


class UNet(nn.Module):
    "The network of Ho et al. (2020): `model(x, t, y=None)`."

    def __init__(self, config: UNetConfig = UNetConfig()):
        super().__init__()
        self.config = config
        widths, has_attention = config.widths, [n in config.attention for n in config.sizes]
        levels, last = range(len(widths)), len(widths) - 1
        emb = 4 * config.channels
        self.time = nn.Sequential(nn.Linear(config.channels, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label = None if config.num_classes is None else nn.Embedding(config.num_classes + 1, emb)

        c = config.channels
        self.conv_in = nn.Conv2d(config.in_channels, c, 3, padding=1)
        skips, self.down, self.up = [c], nn.ModuleList(), nn.ModuleList()
        for i in levels:
            for _ in range(config.blocks):
                self.down.append(Block(c, widths[i], config, has_attention[i]))
                c = widths[i]
                skips.append(c)
            if i < last:
                self.down.append(Downsample(c))
                skips.append(c)
        self.middle = nn.ModuleList([Block(c, c, config, attention=True), Block(c, c, config)])
        for i in reversed(levels):
            for _ in range(config.blocks + 1):
                self.up.append(Block(c + skips.pop(), widths[i], config, has_attention[i]))
                c = widths[i]
            if i > 0:
                self.up.append(Upsample(c))
        self.norm_out = nn.GroupNorm(config.groups, c, eps=1e-6)
        self.conv_out = nn.Conv2d(c, config.in_channels, 3, padding=1)
        self.init_weights()

    def init_weights(self):
        "As in the paper's code: Xavier, and zero where a residual branch or the network ends."
        for m in self.modules():
            if isinstance(m, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(m.weight)
                nn.init.zeros_(m.bias)
        ends = [m.conv2 for m in self.modules() if isinstance(m, Block)]
        ends += [m.out for m in self.modules() if isinstance(m, Attention)]
        for m in [*ends, self.conv_out]:
            nn.init.zeros_(m.weight)

    def forward(
        self,
        x: torch.Tensor,  # (B, C, H, W), any H and W
        t: torch.Tensor,  # (B,) int64, 1..T
        y: torch.Tensor | None = None,  # (B,) int64 labels, 0..K-1, or K, the null; None: all null
    ) -> torch.Tensor:  # (B, C, H, W): the prediction, in the parameterization trained for
        if y is not None and self.label is None:
            raise ValueError("y must be None for a network without labels (num_classes=None), got a tensor.")
        emb = self.time(time_embedding(t, self.config.channels).to(self.conv_in.weight.dtype))
        if self.label is not None:
            emb = emb + self.label(torch.full_like(t, self.config.num_classes) if y is None else y)
        emb = F.silu(emb)

        x = self.conv_in(x)
        skips = [x]
        for layer in self.down:
            x = layer(x, emb) if isinstance(layer, Block) else layer(x)
            skips.append(x)
        for block in self.middle:
            x = block(x, emb)
        for layer in self.up:
            if isinstance(layer, Block):
                x = layer(torch.cat([x, skips.pop()], dim=1), emb)
            else:
                x = layer(x, skips[-1].shape[-2:])
        return self.conv_out(F.silu(self.norm_out(x)))
