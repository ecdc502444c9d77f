"""Long work beside the page: a thread with progress and a cancel button, watched by a fragment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from dcmerge.errors import Cancelled, InputError

Progress = Callable[[float, str], None]


@dataclass
class Work:
    """One piece of long work of this session."""

    label: str
    share: float = 0.0
    text: str = "starting"
    result: Any = None
    error: str = ""
    done: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)

    def run(self, function: Callable[[Progress, Callable[[], bool]], Any]) -> None:
        """Run to the end, whatever comes: the page reads ``result`` or ``error`` when ``done``."""
        try:
            self.result = function(self._tell, self.cancel.is_set)
        except Cancelled:
            self.error = f"{self.label}: cancelled, nothing was changed."
        except InputError as error:
            self.error = str(error)
        except Exception as error:
            self.error = f"{self.label} failed unexpectedly: {type(error).__name__}. The terminal shows the details."
            raise
        finally:
            self.done = True

    def _tell(self, share: float, text: str) -> None:
        self.share, self.text = min(1.0, share), text


def start(key: str, label: str, function: Callable[[Progress, Callable[[], bool]], Any]) -> None:
    """Start work under ``key`` unless it already runs; for a button's callback."""
    running: Work | None = st.session_state.get(key)
    if running is None or running.done:
        work = Work(label)
        st.session_state[key] = work
        threading.Thread(target=work.run, args=(function,), name=label, daemon=True).start()


def running(key: str) -> bool:
    work: Work | None = st.session_state.get(key)
    return work is not None and not work.done


def finished(key: str) -> Work | None:
    """The finished work under ``key``, handed out once."""
    work: Work | None = st.session_state.get(key)
    if work is None or not work.done:
        return None
    del st.session_state[key]
    return work


def watch(key: str) -> None:
    """Progress and a cancel button while the work runs; redraws the page when it ends."""
    if key in st.session_state:  # without work there is nothing to ask the server for twice a second
        _watched(key)


@st.fragment(run_every=0.5)
def _watched(key: str) -> None:
    work: Work | None = st.session_state.get(key)
    if work is None:
        return
    if work.done:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(work.share, text=f"{work.label}: {work.text}")
        st.button("Cancel", key=f"{key}.cancel", icon=":material/cancel:", on_click=work.cancel.set, width="content")
