"""What factors say without their product, against the product."""

import math

import pytest
import torch

from dcmerge.checkpoints import LowRank


def factors(m, n, r, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    return LowRank(torch.randn(m, r, generator=draw).to(dtype), torch.randn(r, n, generator=draw).to(dtype))


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_squares_and_inner_products(rank):
    a, b = factors(12, 9, rank), factors(12, 9, 3, seed=1)
    assert a.square() == pytest.approx(a.dense().double().square().sum().item(), rel=1e-5)
    assert a.inner(b) == pytest.approx((a.dense().double() * b.dense().double()).sum().item(), rel=1e-5, abs=1e-9)


def test_a_product_that_cancels_is_summed_exactly():
    one = factors(40, 30, 4)
    near = LowRank(torch.cat([one.left, -one.left * (1 + 1e-4)], dim=1), torch.cat([one.right, one.right]))
    wanted = near.left.double() @ near.right.double()
    assert near.square() == pytest.approx(wanted.square().sum().item(), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_entry_is_seen_in_the_square(bad):
    for side in ("left", "right"):
        one = factors(6, 5, 2)
        getattr(one, side)[1, 1] = bad
        assert not math.isfinite(one.square())
    large = factors(6, 5, 2) * 1e30  # finite entries whose squares float32 cannot hold
    assert math.isfinite(large.square())


def test_padding_and_zeros():
    one = factors(6, 5, 2)
    assert one.padded(4).rank == 4 and torch.equal(one.padded(4).dense(), one.dense()) and one.padded(1) is one
    none = LowRank.zeros((6, 5))
    assert (none.rank, none.shape, none.square()) == (0, (6, 5), 0.0) and not none.dense().any()
