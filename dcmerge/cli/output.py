"""Text for people (aligned tables, wrapped paragraphs, progress) and JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from dcmerge.checkpoints.schemes import qkv_text
from dcmerge.cli.parser import printable as printable

#: No line is longer: it fits a terminal and a mail.
WIDTH = 120
_NARROWEST = 6
_GAP = "  "
_SECONDS_BETWEEN_UPDATES = 0.1


def elided(text: str, width: int) -> str:
    """The text without its middle where it is longer than ``width``."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, left: Sequence[int] = (0,), indent: int = 0) -> str:
    """Aligned columns, those in ``left`` flush left, numbers flush right; None is "-".

    Where the table is wider than ``WIDTH`` the widest columns lose the middle of their texts.
    """
    cells = [[printable("-" if cell is None else cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    room = WIDTH - indent - len(_GAP) * (len(widths) - 1)
    while sum(widths) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in cells:
        shown = [elided(cell, width) for cell, width in zip(row, widths, strict=True)]
        aligned = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(shown, widths, strict=True))]
        lines.append((" " * indent + _GAP.join(aligned)).rstrip())
    return "\n".join(lines)


def paragraph(text: str, *, indent: int = 0, hanging: int = 2) -> str:
    """The text wrapped at ``WIDTH``, its later lines ``hanging`` columns further in."""
    first, later = " " * indent, " " * (indent + hanging)
    return textwrap.fill(printable(text), WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)


def percent(share: float | None) -> str | None:
    """0.6134 as "61.3"; None stays None."""
    return None if share is None else f"{100 * share:.1f}"


def percent_with_interval(share: float, interval: tuple[float, float], *, signed: bool = False) -> str:
    """ "61.3 [58.2, 64.3]", in percent; ``signed`` for differences, in percentage points."""
    form = "+.1f" if signed else ".1f"
    value, low, high = (format(100 * number, form) for number in (share, *interval))
    return f"{value} [{low}, {high}]"


def qkv_lines(merged: str, stored: str, *, indent: int = 0) -> list[str]:
    """How attention's q, k and v are merged, in a line; none where there is nothing to choose."""
    text = qkv_text(merged, stored)
    return [paragraph(text, indent=indent)] if text else []


def seconds(duration: float) -> str:
    """A duration with one decimal."""
    return f"{duration:.1f}"


def size(count: int) -> str:
    """Bytes in the unit that fits: 15.2 MB (powers of 1000)."""
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def print_json(document: Any) -> None:
    """One JSON document on stdout. NaN and infinity, which JSON lacks, become null."""
    print(_json(_plain(document)))


def _json(value: Any, indent: int = 0) -> str:
    """Indented JSON in which lists of numbers and texts stay on one line: a spectrum has hundreds."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not any(isinstance(child, (dict, list)) for child in children) and not isinstance(value, dict):
        return json.dumps(value, allow_nan=False)
    names = [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(value)
    inner = " " * (indent + 2)
    lines = [f"{inner}{name}{_json(child, indent + 2)}" for name, child in zip(names, children, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(lines) + f"\n{' ' * indent}{closing}" if lines else opening + closing


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


class Progress:
    """A bar in the last line of a terminal, silent elsewhere: ``with Progress() as tell: tell(0.4, "what")``."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._last = -math.inf

    def __enter__(self) -> Progress:
        return self

    def __call__(self, share: float, text: str) -> None:
        now = time.monotonic()
        if not self._shown or now - self._last < _SECONDS_BETWEEN_UPDATES:
            return
        self._last = now
        filled = round(20 * min(max(share, 0.0), 1.0))
        line = f"[{'#' * filled}{' ' * (20 - filled)}] {share:4.0%} {printable(text)}"
        self._stream.write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
