"""Studies of all matrices that grow in the background: shared by the server's visitors, and only while somebody waits for them.

One thread works on all of them, the one that is least far first. So two visitors of the same set share one computation, the lines
of a chart grow together, and nothing takes the processor from what a person moves just now (``Background.first``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from dcmerge.errors import Cancelled, InputError
from dcmerge.runtime.limits import give_back_memory
from dcmerge.studies.pieces import Piece, Pieces

Whole = TypeVar("Whole")
#: Who has not asked for so long (seconds) has left; a page that shows one asks every two.
PATIENCE = 10.0
#: What is found is kept on disk at the end, when everybody has left, and after so many seconds.
_SAVED_EVERY = 15.0
#: So many studies are remembered.
_MOST = 48

log = logging.getLogger(__name__)


class Filling(Generic[Whole]):
    """One study, as far as it is found."""

    def __init__(self, pieces: Pieces[Whole]) -> None:
        self.names, self.entries, self.grows = pieces.names, pieces.entries, pieces.grows
        self.found: dict[str, Piece] = pieces.load()
        self.error = ""
        self._pieces: Pieces[Whole] | None = pieces
        self._whole: Whole | None = None
        self._prepared = False
        self._begun = self._saved = self._wanted = time.monotonic()
        self._at_first = self._kept = len(self.found)
        if len(self.found) == len(self.names):
            self._finish()

    @property
    def done(self) -> bool:
        return self._pieces is None

    @property
    def share(self) -> float:
        """How much of it is found."""
        return len(self.found) / max(1, len(self.names))

    @property
    def seconds_left(self) -> float | None:
        """As the pieces so far tell; None before the first."""
        new, left = len(self.found) - self._at_first, len(self.names) - len(self.found)
        return (time.monotonic() - self._begun) / new * left if new else None

    @property
    def wanted(self) -> bool:
        """Whether somebody has asked for it lately."""
        return time.monotonic() - self._wanted < PATIENCE

    @property
    def unkept(self) -> bool:
        """Whether something was found since it was kept on disk."""
        return self._pieces is not None and len(self.found) > self._kept

    def ask(self) -> None:
        """Say that somebody waits for it."""
        if not self.wanted:  # it lay still: what it took until now says nothing of what is left
            self._begun, self._at_first = time.monotonic(), len(self.found)
        self._wanted = time.monotonic()

    def so_far(self) -> Whole | None:
        """The study of what is found; None where there is nothing to show of a part."""
        pieces = self._pieces
        if pieces is None:
            return self._whole
        return pieces.together(dict(self.found)) if self.grows else None

    def step(self) -> None:
        """Find one more piece. What goes wrong ends it, and ``error`` says so."""
        pieces = self._pieces
        if pieces is None:
            return
        try:
            if not self._prepared:
                pieces.prepare(lambda: not self.wanted)
                self._prepared = True
            name = next(name for name in self.names if name not in self.found)
            self.found[name] = pieces.look(name)
            if len(self.found) == len(self.names):
                self._finish()
            elif time.monotonic() - self._saved > _SAVED_EVERY:
                self.keep()
        except Cancelled:  # nobody waits any more
            pass
        except InputError as error:
            self.error, self._pieces = str(error), None
        except Exception as error:
            log.exception("a study in the background failed")
            self.error = f"This failed unexpectedly: {type(error).__name__}. The terminal shows the details."
            self._pieces = None

    def keep(self) -> None:
        """Keep on disk what is found."""
        if self._pieces and self.unkept:
            self._pieces.save(self.found)
            self._saved, self._kept = time.monotonic(), len(self.found)
            give_back_memory()

    def _finish(self) -> None:
        """The whole is made once; with it go the models from here."""
        assert self._pieces is not None
        self.keep()
        self._whole, self._pieces = self._pieces.together(self.found), None


class Background:
    """All studies of a server, and the thread that works on them while somebody waits."""

    def __init__(self) -> None:
        self._fillings: OrderedDict[Hashable, Filling[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._calm, self._found = threading.Condition(), threading.Condition()
        self._first = 0
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is worked on."""
        return self._thread is None

    def filling(self, key: Hashable, make: Callable[[], Pieces[Whole]]) -> Filling[Whole]:
        """The study under that key, for which somebody waits now; made where nobody asked for it before.

        One that failed is handed out once: who asks again has it tried again.
        """
        with self._lock:
            found = self._fillings.pop(key, None) or Filling(make())
            if not found.error:
                self._fillings[key] = found
            while len(self._fillings) > _MOST:
                self._fillings.popitem(last=False)
        self.ask(found)
        return found

    def ask(self, *fillings: Filling[Any]) -> None:
        """Somebody waits for these: the thread goes on, or begins."""
        for one in fillings:
            one.ask()
        with self._lock:
            if self._thread is None and any(not one.done for one in fillings):
                self._thread = threading.Thread(target=self._work, name="studies", daemon=True)
                self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until the next piece is found, at most so long."""
        with self._found:
            self._found.wait(seconds)

    @contextmanager
    def first(self) -> Iterator[None]:
        """For what a person waits for in front of the screen: no new piece is begun meanwhile."""
        with self._calm:
            self._first += 1
        try:
            yield
        finally:
            with self._calm:
                self._first -= 1
                self._calm.notify_all()

    def _work(self) -> None:
        while (one := self._next()) is not None:
            with self._calm:
                self._calm.wait_for(lambda: not self._first, timeout=PATIENCE)
            one.step()
            with self._found:
                self._found.notify_all()

    def _next(self) -> Filling[Any] | None:
        """The study to go on with; None where nobody waits, and then all is kept and the thread ends."""
        while True:
            with self._lock:
                undone = [one for one in self._fillings.values() if not one.done]
                waiting = [one for one in undone if one.wanted]
                if waiting:
                    return min(waiting, key=lambda one: one.share)
                if not any(one.unkept for one in undone):
                    self._thread = None
                    break
            for one in undone:
                one.keep()
        give_back_memory()
        return None


#: Of this server.
BACKGROUND = Background()
