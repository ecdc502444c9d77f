"""In which arithmetic quick looks run: bfloat16 where this processor multiplies it fast, else float32 like all else."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache

import torch

from dcmerge.errors import InputError
from dcmerge.runtime.threads import compute_device

#: "float32" or "bfloat16" for every look; without it a measurement decides.
VARIABLE = "DCMERGE_LOOKS"
#: From this ratio on, what bfloat16 saves is worth its rounding.
WORTH = 1.5
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: A product as encoders have it, (rows, width) times (width, width), and how often each is timed.
_ROWS, _WIDTH, _RUNS = 512, 768, 3


@dataclass(frozen=True)
class LookPrecision:
    """The dtype of looks, and how many times as fast bfloat16 is here as float32 (1 where nothing was measured)."""

    dtype: torch.dtype
    speed: float = 1.0

    @property
    def is_exact(self) -> bool:
        """Whether a look is what a report would be."""
        return self.dtype == torch.float32

    @property
    def pace(self) -> float:
        """Seconds in float32 of what takes a second in a look, roughly."""
        return 1.0 if self.is_exact else self.speed


EXACT = LookPrecision(torch.float32)


def look_precision() -> LookPrecision:
    """What quick looks run in: bfloat16 where it is at least ``WORTH`` times as fast in products, unless the user said it.

    Measured once in a process, in a fraction of a second. Raises InputError for another word in ``DCMERGE_LOOKS``.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked and asked not in _DTYPES:
        raise InputError(f"{VARIABLE}: expected {' or '.join(_DTYPES)}, got {asked!r}")
    if asked:
        return LookPrecision(_DTYPES[asked])
    return chosen(measured_speed())


def chosen(speed: float) -> LookPrecision:
    """The precision for a processor that is ``speed`` times as fast in bfloat16 as in float32."""
    return LookPrecision(torch.bfloat16 if speed >= WORTH else torch.float32, speed)


@cache
def measured_speed() -> float:
    """Seconds of a product in float32 over those in bfloat16: the shortest of a few each, in turn, after one to warm up."""
    draw, device = torch.Generator().manual_seed(0), compute_device()
    X, W = (torch.randn(n, _WIDTH, generator=draw).to(device) for n in (_ROWS, _WIDTH))
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in _DTYPES.values()}
    given = {dtype: (X.to(dtype), W.to(dtype)) for dtype in seconds}
    for _ in range(1 + _RUNS):
        for dtype, (x, w) in given.items():
            began = time.perf_counter()
            torch.nn.functional.linear(x, w).sum().item()  # the sum waits for a graphics card
            seconds[dtype].append(time.perf_counter() - began)
    fastest = {dtype: min(all_runs[1:]) for dtype, all_runs in seconds.items()}
    return fastest[torch.float32] / fastest[torch.bfloat16]
