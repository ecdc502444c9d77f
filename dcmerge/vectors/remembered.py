"""What was found of files in an earlier process, for pages: the files are known again by their state, and not read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from dcmerge.checkpoints import Checkpoint
from dcmerge.errors import InputError
from dcmerge.runtime.plain import from_plain, to_plain
from dcmerge.vectors.cache import Store, content_key
from dcmerge.vectors.compatibility import Report

#: Raised whenever a report finds other things than before in the same files.
_FORM = 1
_REPORT = "report"


def state_of(base: Checkpoint | None, experts: Mapping[str, Checkpoint], settings: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the state of every file at its opening (device, inode, size, time), and of how they go together."""
    files = {"": base, **experts}
    parts = [f"{task}={[file.state for file in one.seen] if one else 'no base'}" for task, one in files.items()]
    parts += [f"{name}={value}" for name, value in settings.items()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def remembered_report(store: Store | None, state: str, examine: Callable[[], Report]) -> Report:
    """The report that was kept of files in this state, else ``examine()``, kept where it found no error."""
    key = content_key([f"report {_FORM}", state], ())
    kept = store.load(key) if store else None
    if kept and (found := _read(kept[_REPORT])):
        return found
    report = examine()
    if store and not report.errors:
        text = json.dumps(to_plain(report)).encode()
        store.save(key, {_REPORT: torch.frombuffer(bytearray(text), dtype=torch.uint8)})
    return report


def _read(text: torch.Tensor) -> Report | None:
    try:
        return from_plain(Report, json.loads(text.numpy().tobytes()))
    except (InputError, ValueError):  # of another version
        return None
