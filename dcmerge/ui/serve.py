"""``python -P dcmerge/ui/serve.py app.py [Streamlit's options]``: Streamlit, made ready for the first visitor while it starts.

``streamlit run`` reads the pages, and with them torch, only when somebody visits: seconds in which that person waits. Here a
thread does it while the server starts and the browser opens.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from contextlib import suppress

from streamlit import runtime
from streamlit.web import cli

_SECONDS_BETWEEN_LOOKS = 0.02
_SECONDS_BETWEEN_COLLECTIONS = 5.0


def main(arguments: list[str]) -> None:
    """Become Streamlit's server; ``arguments`` are those of ``streamlit run``."""
    gc.disable()  # what is imported stays: looking for garbage among it takes a sixth of the time that importing does
    threading.Thread(target=_get_ready, name="get ready", daemon=True).start()
    sys.argv = ["streamlit", "run", *arguments]
    cli.main(prog_name="streamlit")


def _get_ready() -> None:
    """Once the server answers (two imports at a time are no faster): import what the pages do, open the set they open first."""
    while not runtime.exists():
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    logging.getLogger("streamlit.runtime.scriptrunner_utils.script_run_context").setLevel(logging.ERROR)  # no visitor yet
    with suppress(Exception):  # what fails here fails again where a visitor can read it
        from dcmerge.ui import comparing, spectra  # noqa: F401
        from dcmerge.ui.shell import first_set, opened

        opened(first_set())
    gc.enable()
    _tidy()


def _tidy() -> None:
    """Look for garbage every few seconds, but not among what modules made when they were imported, which stays.

    Streamlit would do it after every run of a page, among all objects: half a second each time with torch and open_clip loaded.
    """
    modules = 0
    while True:
        gc.collect()
        if len(sys.modules) > modules:
            modules = len(sys.modules)
            gc.freeze()
        time.sleep(_SECONDS_BETWEEN_COLLECTIONS)


if __name__ == "__main__":
    main(sys.argv[1:])
