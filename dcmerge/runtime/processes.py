"""How a part of this package is started in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def module_command(module: str, *arguments: str) -> list[str]:
    """``python -m module`` with the interpreter that runs now; modules in the current folder do not come first (``-P``)."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> Mapping[str, str]:
    """This process's environment, in which this very package is found, wherever the process is started."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
