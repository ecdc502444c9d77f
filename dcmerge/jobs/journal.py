"""The folder of one job: what is to be done, a journal that only grows, and the results of finished steps.

``job.json``       the specification, written once
``journal.jsonl``  one event a line: states, progress, steps; the last line may be torn when a process dies
``steps/``         one file for the result of each finished step, complete or not there
``cancel``         there while somebody wants the job to stop
``lock``           locked by the worker as long as it lives, which tells a running job from one whose worker has died
``worker.log``     what the worker printed
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcmerge.errors import InputError

#: Where jobs live, unless ``$XDG_STATE_HOME/dcmerge/jobs`` is meant.
FOLDER_VARIABLE = "DCMERGE_JOBS"
QUEUED, RUNNING, DONE, FAILED, CANCELLED, INTERRUPTED = "queued", "running", "done", "failed", "cancelled", "interrupted"
_STATE, _PROGRESS, _STEP = "state", "progress", "step"


def jobs_folder() -> Path:
    """The folder of ``DCMERGE_JOBS``, else ``dcmerge/jobs`` in the user's folder for state."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "dcmerge" / "jobs"


def write_whole(path: Path, text: str) -> None:
    """The file is there with all of the text, or as it was before."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


@dataclass(frozen=True)
class Event:
    """One line of a journal: when (seconds since 1970), what kind, and its facts."""

    at: float
    kind: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class JobFolder:
    """One job on disk."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    def create(self, specification: dict[str, Any]) -> None:
        (self.path / "steps").mkdir(parents=True)
        self.state(QUEUED)
        # Last: a folder without it is not a job yet.
        write_whole(self.path / "job.json", json.dumps({"specification": specification, "created": time.time()}))

    def description(self) -> dict[str, Any]:
        """``specification`` and ``created``; raises InputError where they cannot be read."""
        try:
            return json.loads((self.path / "job.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"job: expected a readable job in {self.path}, got {error}") from None

    def state(self, value: str, **facts: Any) -> None:
        self._append(_STATE, value=value, **facts)

    def progress(self, share: float, text: str) -> None:
        self._append(_PROGRESS, share=share, text=text)

    def _append(self, kind: str, **facts: Any) -> None:
        """One whole line in one write, after a line end where the last one is torn."""
        line = json.dumps({"at": time.time(), "kind": kind, **facts}) + "\n"
        with open(self.path / "journal.jsonl", "ab") as file:
            if file.tell() and not self._ends_with_a_line():
                line = "\n" + line
            file.write(line.encode())

    def _ends_with_a_line(self) -> bool:
        with open(self.path / "journal.jsonl", "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"

    def events(self) -> list[Event]:
        """Everything that was written whole, oldest first."""
        found = []
        with suppress(FileNotFoundError):
            for line in (self.path / "journal.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, KeyError, TypeError):  # torn by a process that died
                    facts = json.loads(line)
                    found.append(Event(facts.pop("at"), facts.pop("kind"), facts))
        return found

    def finish_step(self, name: str, result: Any) -> None:
        """Keep the result of a step; a step that was there before is replaced."""
        write_whole(self.path / "steps" / f"{name}.json", json.dumps(result))
        self._append(_STEP, name=name)

    def steps(self) -> dict[str, Any]:
        """Results of finished steps by name, in the order in which they first finished."""
        names = dict.fromkeys(event.facts["name"] for event in self.events() if event.kind == _STEP)
        found = {}
        for name in names:
            with suppress(OSError, ValueError):
                found[name] = json.loads((self.path / "steps" / f"{name}.json").read_text(encoding="utf-8"))
        return found

    @property
    def _marker(self) -> Path:
        return self.path / "cancel"

    def ask_to_stop(self) -> None:
        self._marker.touch()

    def forget_to_stop(self) -> None:
        self._marker.unlink(missing_ok=True)

    def is_asked_to_stop(self) -> bool:
        return self._marker.exists()

    def is_alive(self) -> bool:
        """Whether a worker holds the job's lock."""
        with open(self.path / "lock", "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    @contextmanager
    def alive(self) -> Iterator[bool]:
        """Hold the job's lock, which the system takes back however the process ends; False where another one has it."""
        with open(self.path / "lock", "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last lines that the worker printed."""
        with suppress(OSError):
            return (self.path / "worker.log").read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        return []
