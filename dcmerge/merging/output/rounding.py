"""What is lost of a merged delta when the merged weights are stored with fewer bits than they were computed with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dcmerge.spectral.linalg import square_of

#: Shares from which a loss is a warning.
LARGE = 0.1
#: Dtypes in which float32 is stored without loss.
_EXACT = (torch.float32, torch.float64)


@dataclass
class Rounding:
    """Sums over all entries that were written in fewer than 32 bits.

    x = base + α · delta in float32 becomes the stored weight cast(x). ``lost_share`` is ‖cast(x) − x‖ / ‖α · delta‖, and
    ``unchanged_share`` the share of entries with a delta whose stored weight is that of the base: there the merge does nothing.
    """

    dtypes: set[str] = field(default_factory=set)
    entries: int = 0
    unchanged: int = 0
    error_square: float = 0.0
    delta_square: float = 0.0

    def add(self, base: Tensor, step: Tensor, moved: Tensor, stored: Tensor) -> None:
        """Entries: base, step = α · delta, moved = base + step in float32, and moved as it is stored; all of one shape."""
        if stored.dtype in _EXACT:
            return
        self.dtypes.add(str(stored.dtype).removeprefix("torch."))
        with_delta, wide = int(torch.count_nonzero(step)), stored.float()
        self.entries += with_delta
        self.error_square += square_of(wide - moved)
        self.delta_square += square_of(step)
        # Entries without a delta keep the base's weight, and are no loss: all that changed had one.
        changed = int(torch.count_nonzero(wide.sub_(base.to(stored.dtype).float())))
        self.unchanged += with_delta - changed

    def include(self, other: Rounding) -> None:
        """What was counted apart."""
        self.dtypes |= other.dtypes
        self.entries += other.entries
        self.unchanged += other.unchanged
        self.error_square += other.error_square
        self.delta_square += other.delta_square

    @property
    def lost_share(self) -> float:
        """‖cast(x) − x‖ / ‖α · delta‖; 0 where there is no delta."""
        return math.sqrt(self.error_square / self.delta_square) if self.delta_square else 0.0

    @property
    def unchanged_share(self) -> float:
        return self.unchanged / self.entries if self.entries else 0.0

    @property
    def is_large(self) -> bool:
        """Whether one of the shares is more than ``LARGE``."""
        return max(self.lost_share, self.unchanged_share) > LARGE

    @property
    def text(self) -> str:
        """One sentence with both shares, a warning where they are large; empty where nothing was rounded."""
        if not self.entries:
            return ""
        told = (
            f"rounding to {' and '.join(sorted(self.dtypes))} changes the merged weights by {100 * self.lost_share:.3g} % of "
            f"the norm of α · merged; {100 * self.unchanged_share:.3g} % of its nonzero entries leave the stored weight as "
            "in the base"
        )
        warning = f"; above {100 * LARGE:g} % much of the merge is lost, and float32 keeps it"
        return f"warning: {told}{warning}" if self.is_large else told
