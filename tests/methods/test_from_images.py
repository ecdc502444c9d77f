"""Weights as matrices of what layers see, the only place where a transposition could hide."""

from __future__ import annotations

import pytest
import torch

from dcmerge.methods.from_images import as_linear, from_linear, is_transposed
from dcmerge.spectral.linalg import answered

SHAPES = {"visual.conv1.weight": (6, 3, 2, 2), "visual.proj": (5, 4), "mlp.c_fc.weight": (7, 5), "text_projection": (5, 4)}
ROWS = {"visual.conv1.weight": (6, 12), "visual.proj": (4, 5), "mlp.c_fc.weight": (7, 5), "text_projection": (4, 5)}


@pytest.mark.parametrize("name", SHAPES)
def test_a_weight_as_a_matrix_has_one_row_an_output_and_comes_back(name: str) -> None:
    D = torch.arange(2 * torch.tensor(SHAPES[name]).prod().item()).reshape(2, *SHAPES[name])
    stack = as_linear(name, D)
    assert stack.shape == (2, *ROWS[name])
    for one, matrix in zip(D, stack, strict=True):
        assert torch.equal(as_linear(name, one), matrix)
        assert torch.equal(from_linear(name, matrix, SHAPES[name]), one)


def test_only_projections_are_stored_the_other_way_round() -> None:
    names = ["visual.proj", "text_projection", "visual.attn.out_proj.weight", "visual.transformer.resblocks.0.mlp.c_proj.weight"]
    assert [is_transposed(name) for name in names] == [True, True, False, False]


def test_answers_of_a_singular_system_are_those_of_the_pseudo_inverse() -> None:
    draw = torch.Generator().manual_seed(0)
    X, B = (torch.randn(rows, 6, generator=draw, dtype=torch.float64) for rows in (3, 4))
    torch.testing.assert_close(answered(B, X.T @ X), B @ torch.linalg.pinv(X.T @ X, hermitian=True))
    assert not answered(B, torch.zeros(6, 6, dtype=torch.float64)).any()


def test_what_is_hardly_seen_is_not_seen() -> None:
    G = torch.diag(torch.tensor([1.0, 1e-9, 1e-11], dtype=torch.float64))
    found = answered(torch.ones(1, 3, dtype=torch.float64), G)
    assert found[0].tolist() == pytest.approx([1, 1e9, 0])
