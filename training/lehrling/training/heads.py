"""What is trained in full: the slots that carry state and queries in, and Head R that reads actions out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def step_embedding(length: int, width: int) -> Tensor:
    """Return sinusoidal embeddings (length, width) of the steps in a chunk (Vaswani et al. 2017)."""
    steps = torch.arange(length).float()[:, None]
    rates = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10_000.0) / width))
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(steps * rates)
    table[:, 1::2] = torch.cos(steps * rates)[:, : width // 2]
    return table


class Slots(nn.Module):
    """Learned vectors for the state slot and the action slots.

    Shapes: state (B, S) normalised -> (B, 1 + H, D).
    """

    def __init__(self, state: int, chunk: int, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.state = nn.Sequential(nn.Linear(state, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.query = nn.Parameter(torch.randn(chunk, width) * 0.02)
        self.register_buffer("step", step_embedding(chunk, width) * 0.02, persistent=False)

    def forward(self, state: Tensor) -> Tensor:
        """Return the vectors for every slot."""
        actions = (self.query + self.get_buffer("step")).expand(state.shape[0], -1, -1)
        return torch.cat([self.state(state)[:, None], actions], dim=1)


class ResidualBlock(nn.Module):
    """x + MLP(LayerNorm(x)), width kept."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, same shape."""
        return x + self.inner(self.norm(x))  # type: ignore[no-any-return]


class HeadR(nn.Module):
    """Regression head: hidden states at the action slots (B, H, D) -> normalised actions (B, H, A).

    LayerNorm, two residual MLP blocks, linear; after OpenVLA-OFT (arXiv 2502.19645).
    """

    def __init__(self, width: int, actions: int, hidden: int = 256, blocks: int = 2) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[ResidualBlock(width, hidden) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, actions)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return normalised actions."""
        return self.out(self.norm(self.blocks(hidden)))  # type: ignore[no-any-return]


def masked_l1(predicted: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute error over rows where `mask` (B, H) holds; actions are (B, H, A)."""
    weights = mask.to(predicted.dtype)[..., None].expand_as(predicted)
    return ((predicted - wanted).abs() * weights).sum() / weights.sum().clamp(min=1.0)
