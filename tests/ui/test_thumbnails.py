"""Small pictures: tiny ones are enlarged without blur, large ones made small."""

from __future__ import annotations

import torch

from dcmerge.ui.thumbnails import _pixels


def test_a_tiny_picture_keeps_its_pixels() -> None:
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = _pixels(image)
    assert found.shape == (96, 96, 3) and (found[::3, ::3] == image.permute(1, 2, 0).numpy()).all()
    assert (found[1::3, 2::3] == found[::3, ::3]).all()


def test_a_large_picture_is_made_small_and_keeps_its_form() -> None:
    image = torch.full((3, 480, 240), 77, dtype=torch.uint8)
    found = _pixels(image)
    assert found.shape == (96, 48, 3) and (found == 77).all()
