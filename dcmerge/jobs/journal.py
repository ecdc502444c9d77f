"""What happened in a job, one JSON line an event."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]


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
        events = _events(str(self.path), status.st_size, status.st_mtime_ns)
        return events if kind is None else tuple(event for event in events if event["event"] == kind)


@lru_cache(maxsize=256)
def _events(path: str, size: int, changed: int) -> tuple[Event, ...]:
    """The events of a file in this state: a panel asks every second, and most journals have long ended."""
    with open(path, "rb") as file:
        lines = file.read(size).split(b"\n")
    events = []
    for line in lines:
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event and "time" in event:
                events.append(event)
    return tuple(events)
