"""Muon: momentum whose matrix updates are orthogonalised (Keller Jordan et al., 2024, kellerjordan.github.io/posts/muon).

torch.optim.Muon always orthogonalises in bfloat16, which a processor without such instructions computes very slowly, and
takes an attention input for one matrix: hence this one. Characters were learned with a quarter of AdamW's steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dcmerge.zoo.build.model import has_bfloat16


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Push all singular values of (m, n) towards 1 (between about 0.7 and 1.2) by Newton-Schulz iterations."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (wide.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum 0.95 with orthogonalised updates; a stacked (3 n, n) attention input counts as three matrices."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every matrix that has a gradient; the closure, which other optimisers take, is not called."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p)).lerp_(p.grad, 0.05)
                blocks = p.grad.lerp(momentum, 0.95).chunk(3 if p.shape[0] == 3 * p.shape[1] else 1)
                tall = max(1.0, blocks[0].shape[0] / blocks[0].shape[1]) ** 0.5
                precision = torch.bfloat16 if has_bfloat16() else p.dtype
                update = torch.cat([orthogonalise(block.to(precision)) for block in blocks]).to(p.dtype)
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * tall)
