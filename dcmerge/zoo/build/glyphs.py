"""Draw single characters from font files as grey masks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont


@lru_cache(maxsize=512)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def render_mask(path: str, text: str, canvas: int = 64, extent: int = 46) -> np.ndarray | None:
    """Draw `text` centred on a square canvas, its longer side `extent` pixels.

    Returns (canvas, canvas) uint8, 255 where there is ink, or None when the font has no such glyph or a broken one.
    """
    try:
        font = _font(path, 64)
        left, top, right, bottom = font.getbbox(text)
        width, height = int(right - left), int(bottom - top)
        if width < 2 or height < 2 or max(width, height) > 400:
            return None
        image = Image.new("L", (width, height), 0)
        ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=font)
    except OSError:
        return None
    scale = extent / max(width, height)
    image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR)
    board = Image.new("L", (canvas, canvas), 0)
    board.paste(image, ((canvas - image.width) // 2, (canvas - image.height) // 2))
    mask = np.asarray(board)
    return mask if mask.max() > 64 else None
