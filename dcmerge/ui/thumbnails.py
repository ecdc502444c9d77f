"""Images of tasks as small pictures with captions, side by side, a page of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
import torch
from torch import Tensor

_SIDE, _WIDTH, _PAGE = 96, 132, 24


@dataclass(frozen=True)
class Thumbnail:
    """``image`` uint8 (3, H, W); ``caption`` in Markdown, names in it made plain; ``alt`` says what it shows."""

    image: Tensor
    caption: str
    alt: str


def gallery(found: Sequence[Thumbnail], key: str) -> None:
    """Pictures beside each other, as many as fit, on pages where there are more."""
    pages = -(-len(found) // _PAGE)
    if pages > 1 and st.session_state.get(key, 1) > pages:
        st.session_state[key] = 1
    page = st.pagination(pages, key=key) if pages > 1 else 1
    with st.container(horizontal=True, gap="small"):
        for one in found[(page - 1) * _PAGE : page * _PAGE]:
            with st.container(width=_WIDTH, gap=None):
                st.image(_pixels(one.image), width=_SIDE, alt=one.alt)
                st.caption(one.caption)


def _pixels(image: Tensor) -> np.ndarray:
    """(H, W, 3), small ones enlarged without blur, large ones made small."""
    side = max(image.shape[1:])
    if side > 2 * _SIDE:
        size = [max(1, round(length * _SIDE / side)) for length in image.shape[1:]]
        small = torch.nn.functional.interpolate(image[None].float(), size, mode="area")[0]
        return small.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    zoom = max(1, _SIDE // side)
    return image.permute(1, 2, 0).repeat_interleave(zoom, 0).repeat_interleave(zoom, 1).contiguous().numpy()
