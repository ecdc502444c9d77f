"""Smoothing and the figures of a spectrum, by hand and by property."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dcmerge.errors import InputError
from dcmerge.spectral.spectra import (
    SMOOTHINGS,
    cumulative_energy,
    effective_rank,
    energy_share,
    key_figures,
    smooth,
    stable_rank,
    top_share,
)

S = torch.tensor([8.0, 4.0, 2.0, 2.0])

spectra = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20).map(
    lambda values: torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
)
rhos = st.floats(1, 100)


def test_average_worked_by_hand() -> None:
    assert smooth(S, "average").tolist() == [4, 4, 4, 4]


def test_linear_worked_by_hand() -> None:
    """Σs = 16, ρ = 3 < 8/2: w = (3, 7/3, 5/3, 1), Σw = 8."""
    assert smooth(S, "linear", 3.0).tolist() == pytest.approx([6, 14 / 3, 10 / 3, 2])


def test_linear_keeps_a_ratio_that_is_below_rho() -> None:
    """s_1/s_r = 4 < ρ = 5: w = (4, 3, 2, 1), Σw = 10."""
    assert smooth(S, "linear", 5.0).tolist() == pytest.approx([6.4, 4.8, 3.2, 1.6])


def test_none_is_a_copy() -> None:
    same = smooth(S, "none")
    assert torch.equal(same, S) and same.data_ptr() != S.data_ptr()


@given(s=spectra, rho=rhos, strategy=st.sampled_from(SMOOTHINGS))
def test_sum_and_order_stay(s: Tensor, rho: float, strategy: str) -> None:
    smoothed = smooth(s, strategy, rho)
    assert smoothed.sum().item() == pytest.approx(s.sum().item(), rel=1e-9)
    assert (smoothed.diff() <= 1e-9 * smoothed[0]).all() and (smoothed >= 0).all()


@given(s=spectra, rho=rhos)
def test_linear_ratio_is_rho_or_the_own_one(s: Tensor, rho: float) -> None:
    smoothed = smooth(s, "linear", rho)
    wanted = min(rho, (s[0] / s[-1]).item()) if len(s) > 1 else 1.0
    assert (smoothed[0] / smoothed[-1]).item() == pytest.approx(wanted, rel=1e-9)


@given(s=spectra)
def test_rho_one_is_average(s: Tensor) -> None:
    torch.testing.assert_close(smooth(s, "linear", 1.0), smooth(s, "average"))


def test_a_spectrum_with_zeros_takes_rho_as_its_ratio() -> None:
    assert smooth(torch.tensor([3.0, 0.0]), "linear", 5.0).tolist() == pytest.approx([2.5, 0.5])


@pytest.mark.parametrize("strategy", SMOOTHINGS)
@pytest.mark.parametrize("s", [torch.zeros(3), torch.zeros(0), torch.ones(1), torch.full((2,), 1e-30)])
def test_spectra_at_the_border_stay_finite(strategy: str, s: Tensor) -> None:
    smoothed = smooth(s, strategy)
    assert smoothed.shape == s.shape and torch.isfinite(smoothed).all()
    torch.testing.assert_close(smoothed.sum(), s.sum())


def test_rows_are_smoothed_one_by_one() -> None:
    rows = torch.stack([S, S.flip(0).cumsum(0).flip(0)])
    for strategy in SMOOTHINGS:
        torch.testing.assert_close(smooth(rows, strategy), torch.stack([smooth(row, strategy) for row in rows]))


@pytest.mark.parametrize(
    ("strategy", "rho", "text"),
    [
        ("flat", 5.0, "smoothing: expected one of none, average, linear, got 'flat'"),
        ("linear", 0.5, "rho: expected a finite number of at least 1, got 0.5"),
        ("linear", math.nan, "got nan"),
        ("linear", math.inf, "got inf"),
    ],
)
def test_bad_smoothing_is_refused(strategy: str, rho: float, text: str) -> None:
    with pytest.raises(InputError, match=text):
        smooth(S, strategy, rho)


def test_energy_says_which_power() -> None:
    assert energy_share(S, power=1).tolist() == [0.5, 0.25, 0.125, 0.125]
    assert energy_share(S).tolist() == pytest.approx([64 / 88, 16 / 88, 4 / 88, 4 / 88])
    assert cumulative_energy(S, power=1).tolist() == [0.5, 0.75, 0.875, 1.0]


def test_ranks_of_flat_spiked_and_zero_spectra() -> None:
    flat, spiked, zero = torch.ones(6), torch.tensor([1.0, 0, 0]), torch.zeros(4)
    assert effective_rank(flat) == pytest.approx(6) and stable_rank(flat) == pytest.approx(6)
    assert effective_rank(spiked) == pytest.approx(1) and stable_rank(spiked) == pytest.approx(1)
    assert effective_rank(zero) == stable_rank(zero) == 0 and not energy_share(zero).any()
    assert stable_rank(S) == pytest.approx(88 / 64)
    assert effective_rank(S) == pytest.approx(2 ** (0.5 + 0.5 + 0.375 + 0.375))


def test_top_share_counts_at_least_one_component() -> None:
    assert top_share(S, 0.05, power=1) == 0.5 and top_share(S, 0.5, power=1) == 0.75
    assert top_share(S, 1.0) == pytest.approx(1)


def test_key_figures() -> None:
    figures = key_figures(S, fraction=0.5, power=1)
    assert (figures.components, figures.largest, figures.sum, figures.top_share) == (4, 8, 16, 0.75)
    assert key_figures(torch.zeros(0)).largest == 0
