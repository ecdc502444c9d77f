"""Gradient descent on one matrix: what methods with an objective of their own share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dcmerge.methods.declare import Number

ITERATIONS = Number("Iterations", "Adam steps for each matrix.", 0, 10000, 50, integer=True, soft_high=1000)


def descended(start: Tensor, gradient: Callable[[Tensor], Tensor | None], iterations: int, learning_rate: float) -> Tensor:
    """``start`` after so many steps of Adam along ``gradient(x)``, or until that is None; ``start`` is not changed."""
    x = start.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=learning_rate)
    for _ in range(iterations):
        x.grad = gradient(x.detach())
        if x.grad is None:
            break
        adam.step()
    return x.detach()
