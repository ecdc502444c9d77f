"""Pictures from outside, opened by the decoders of a few formats: others start programs, or read far more than they show."""

from __future__ import annotations

import io
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from PIL import Image

from dcmerge.checkpoints.paths import checked_file
from dcmerge.errors import InputError

#: What data sets come in. Pillow would take an EPS that is called .png, and start Ghostscript for it.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
#: Ten thousand by four thousand: more is no picture of a data set. Decoding one takes four bytes a pixel.
MOST_PIXELS = 40_000_000
#: Pictures of more pixels are decoded one at a time.
_LARGE_PIXELS = 6_000_000
_one_large = threading.Lock()


def open_picture(source: Path | bytes) -> Image.Image:
    """A picture, its size known and nothing of it decoded.

    Raises InputError for one of too many pixels, and Pillow's errors for a damaged one.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else checked_file(source)
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MOST_PIXELS:
        size = f"{image.width} x {image.height} pixels"
        image.close()
        raise InputError(f"expected at most {MOST_PIXELS} pixels, got {size}")
    return image


def turn_for(image: Image.Image) -> AbstractContextManager:
    """While a large picture is decoded no other large one is: together they would take all memory."""
    return _one_large if image.width * image.height > _LARGE_PIXELS else nullcontext()
