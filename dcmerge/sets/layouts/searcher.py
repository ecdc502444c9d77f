"""The search of folders for a server: in a process of its own, so that no file holds up or ends the one that answers visitors."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from dcmerge.checkpoints import Roots
from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.runtime.processes import environment, module_command
from dcmerge.sets.layouts.apart import MEMORY, SECONDS
from dcmerge.sets.layouts.search import Search

#: A disk that says nothing for so long (seconds) is not waited for.
_SILENCE = 60.0
#: A busy machine takes a while to import the package.
_START = 180.0
#: So many files of a folder may end the process; with more it is no folder to search.
_MOST_ENDED = 32


class _Ended(Exception):
    """The process died, or was ended, at its work on a path in a state (``signature``)."""

    def __init__(self, path: str, signature: str, why: str) -> None:
        super().__init__(path)
        self.path, self.signature, self.why = path, signature, why


class Searcher:
    """``search`` in a process that is kept, and started again when a file has ended it. One question at a time."""

    def __init__(self, command: list[str] | None = None, silence: float = _SILENCE) -> None:
        self._command = command or module_command("dcmerge.sets.layouts.apart")
        self._silence = silence
        self._turn = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        #: (path, state) of files that ended the process, and why: they are reported, and not read again until they change.
        self._refused: dict[tuple[str, str], str] = {}

    def search(self, folder: str | os.PathLike[str], roots: Roots | None = None) -> Search:
        """As ``layouts.search``; a file that takes more than the limits is among those that cannot be opened.

        Raises InputError where the folder cannot be searched.
        """
        with self._turn:
            for _ in range(_MOST_ENDED):
                try:
                    told = self._ask(str(folder), roots)
                except _Ended as end:
                    self._stop()
                    if (end.path, end.signature) in self._refused or Path(end.path) == Path(folder):
                        break
                    self._refused[end.path, end.signature] = end.why
                    continue
                if "error" in told:
                    raise InputError(told["error"])
                return Search.from_data(told["found"])
        raise InputError(f"Cannot search {shown(folder)}: it takes more than {_limits()}.")

    def _ask(self, folder: str, roots: Roots | None) -> dict[str, Any]:
        refused = [[path, signature, why] for (path, signature), why in self._refused.items()]
        allowed = None if roots is None else [str(root) for root in roots.folders]
        at, signature = folder, ""
        try:
            process = self._running()
            assert process.stdin is not None  # it is a pipe
            process.stdin.write(json.dumps({"folder": folder, "roots": allowed, "refused": refused}) + "\n")
            process.stdin.flush()
            while (line := self._lines.get(timeout=self._silence)) is not None:
                told = json.loads(line)
                if "at" not in told:
                    return told
                at, signature = told["at"], told["signature"]
        except (queue.Empty, OSError, ValueError):
            raise _Ended(at, signature, f"reading it takes longer than {self._silence:.0f} s") from None
        raise _Ended(at, signature, f"reading it takes more than {_limits()}")

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._lines = queue.Queue()
            self._process = subprocess.Popen(
                self._command,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
            assert self._process.stdout is not None  # it is a pipe
            threading.Thread(target=_forward, args=(self._process.stdout, self._lines), daemon=True).start()
            if self._lines.get(timeout=_START) is None:
                raise OSError("the process that searches could not be started")
        return self._process

    def _stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process = None

    close = _stop


def _forward(lines: TextIO, to: queue.Queue[str | None]) -> None:
    with lines:
        for line in lines:
            to.put(line)
    to.put(None)


def _limits() -> str:
    return f"{SECONDS} s of processor time or {MEMORY >> 30} GiB of memory"


@lru_cache(maxsize=1)
def searcher() -> Searcher:
    """This process's own; its process ends with this one, whose pipe it reads."""
    return Searcher()
