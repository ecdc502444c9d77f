"""What happened in a job, one JSON line an event."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]
#: The end of the year 9999, beyond which no calendar of Python's goes; and how much of a journal is read, its end.
_LAST_TIME, _MOST_BYTES = 253_402_300_799, 32 << 20


class Journal:
    """An append-only file of events. Several processes may append; a line torn by a kill is skipped by every reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, **facts: Any) -> None:
        """Add an event with the time; it is in the file when this returns."""
        line = json.dumps({"time": time.time(), "event": event, **facts}).encode() + b"\n"
        with open(self.path, "ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":  # whoever wrote last was killed within its line
                    line = b"\n" + line
            file.write(line)

    def events(self, kind: str | None = None) -> tuple[Event, ...]:
        """All events in order, or those of one kind; none where there is no journal."""
        try:
            status = self.path.stat()
        except OSError:
            return ()
        events = _read(str(self.path), status.st_size, status.st_mtime_ns)[0]
        return events if kind is None else tuple(event for event in events if event["event"] == kind)

    def odd(self) -> int:
        """How many lines are no events that this version understands, a torn last one left out."""
        try:
            status = self.path.stat()
        except OSError:
            return 0
        return _read(str(self.path), status.st_size, status.st_mtime_ns)[1]


@lru_cache(maxsize=256)
def _read(path: str, size: int, changed: int) -> tuple[tuple[Event, ...], int]:
    """The events of a file in this state, and how many lines are none: a panel asks every second, and most have long ended."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, size - _MOST_BYTES))
            lines = file.read(_MOST_BYTES).split(b"\n")
    except OSError:
        return (), 0
    *whole, last = lines
    events = [_event(line) for line in whole]
    return tuple(filter(None, [*events, _event(last)])), sum(not event for event in events)


def _event(line: bytes) -> Event | None:
    """One line's event, its facts of the kinds that readers rely on; None of anything else.

    A journal may come from a newer version, or have met a bad disk: whoever reads it must not have to doubt its types.
    """
    try:
        event = json.loads(line)
        if not isinstance(event, dict) or not isinstance(event["event"], str):
            return None
        if not 0 <= _number(event["time"]) <= _LAST_TIME:
            return None
        return {**event, **_FACTS.get(event["event"], dict)(event)}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"expected a number, got {value!r:.50}")
    return float(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _state(event: Event) -> Event:
    return {"state": _text(event.get("state")), "text": _text(event.get("text"))}


def _progress(event: Event) -> Event:
    share = event.get("share")
    return {"share": None if share is None else min(1.0, max(0.0, _number(share))), "text": _text(event.get("text"))}


def _worker(event: Event) -> Event:
    # To a process of the number 0 or below the system sends what is meant for many.
    if isinstance(event["pid"], bool) or not isinstance(event["pid"], int) or not 1 < event["pid"] < 1 << 31:
        raise ValueError(f"expected a process's number, got {event['pid']!r:.50}")
    return {}


def _step(event: Event) -> Event:
    return {"name": _text(event.get("name"))}


_FACTS: Mapping[str, Callable[[Event], Event]] = {
    "state": _state,
    "progress": _progress,
    "worker": _worker,
    "step": _step,
}
