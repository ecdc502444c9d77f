"""Rank correlations and regrets of many resamples at once, where several rows belong to one merge."""

from __future__ import annotations

import torch
from torch import Tensor

#: Resamples of the merges, and shuffles of the labels.
RESAMPLES = 1000
_TINY = 1e-12


def drawn_weights(merges: Tensor, resamples: int = RESAMPLES, seed: int = 0) -> Tensor:
    """How often each of n rows counts in each resample of whole merges, float64 (B, n); merges: int64 (n,) from 0."""
    count = int(merges.max()) + 1
    drawn = torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(resamples, count, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    return times[:, merges]


def spearman(x: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Spearman's rank correlation of x and y (n,), each row counted as often as ``weights`` (B, n) say, (B,).

    Equal values share their mean rank, as if every row were repeated. NaN where x or y is constant.
    """
    counts = torch.ones(1, len(x), dtype=torch.float64) if weights is None else weights
    return _correlation(_weighted_ranks(x, counts), _weighted_ranks(y, counts), counts)


def shuffled_spearman(x: Tensor, y: Tensor, merges: Tensor, shuffles: int = RESAMPLES, seed: int = 0) -> Tensor:
    """The same of x and shuffled y, (shuffles,): every merge gets the accuracies of another one, in another order.

    Rows of one merge stay together, as they are alike: shuffled one by one they would make the null too narrow.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = merges.bincount()
    starts, place = sizes.cumsum(0) - sizes, torch.empty_like(merges)
    by_merge = merges.argsort(stable=True)
    place[by_merge] = torch.arange(len(merges)) - starts[merges[by_merge]]
    # Keys below 1 keep the merges in order and put the rows of each in another one.
    mixed = (merges + torch.rand(shuffles, len(merges), generator=generator, dtype=torch.float64)).argsort(dim=1)
    other = torch.rand(shuffles, len(sizes), generator=generator).argsort(dim=1)[:, merges]
    # A merge with fewer rows (no α to choose) gives them more than once.
    places = mixed.gather(1, starts[other] + place % sizes[other])
    ones = torch.ones(shuffles, len(x), dtype=torch.float64)
    return _correlation(_ranks(x[None]).expand(shuffles, -1), _ranks(y[places]), ones)


def regrets(scores: Tensor, accuracy: Tensor, weights: Tensor | None = None) -> Tensor:
    """The best accuracy minus that of the row with the largest score, among rows that count, (B,); of equal scores the mean."""
    counts = torch.ones(1, len(scores), dtype=torch.float64) if weights is None else weights
    there = counts > 0
    top = torch.where(there, scores, -torch.inf).amax(dim=1, keepdim=True)
    chosen = (there & (scores >= top - _TINY)).double()
    best = torch.where(there, accuracy, -torch.inf).amax(dim=1)
    return best - (chosen * accuracy).sum(dim=1) / chosen.sum(dim=1)


def chance_regrets(accuracy: Tensor, weights: Tensor | None = None) -> Tensor:
    """The best accuracy minus the mean: what choosing blindly costs, (B,)."""
    return regrets(torch.zeros_like(accuracy), accuracy, weights)


def interval(values: Tensor) -> tuple[float, float]:
    """The middle 95 % of the values that are none of NaN; (NaN, NaN) of none."""
    known = values[~values.isnan()]
    if not len(known):
        return float("nan"), float("nan")
    low, high = known.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _ranks(values: Tensor) -> Tensor:
    """Ranks of the rows of (B, n), equal values sharing their mean rank."""
    ordered = values.sort(dim=1).values.contiguous()
    values = values.contiguous()
    return (torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)).double()


def _weighted_ranks(values: Tensor, weights: Tensor) -> Tensor:
    """Ranks of values (n,) when each counts so often, (B, n)."""
    below = (values[:, None] > values).double() + (values[:, None] == values).double() / 2
    return weights @ below.T


def _correlation(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    total = weights.sum(dim=1, keepdim=True)
    a = a - (weights * a).sum(dim=1, keepdim=True) / total
    b = b - (weights * b).sum(dim=1, keepdim=True) / total
    spread = ((weights * a * a).sum(dim=1) * (weights * b * b).sum(dim=1)).sqrt()
    return torch.where(spread > 1e-9, (weights * a * b).sum(dim=1) / spread.clamp_min(1e-300), torch.nan)
