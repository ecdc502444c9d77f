"""Small files of the program's own: where they lie, and JSON that appears whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Where the jobs and the runs are; all that share this folder share one queue and one store.
JOBS_VARIABLE = "DCMERGE_JOBS"
#: A row of a comparison holds a sign for each image.
_MOST_BYTES = 256 << 20


def state_folder(variable: str, name: str) -> Path:
    """The folder that an environment variable names, else ``dcmerge/NAME`` in the user's folder for programs' states."""
    folder = os.environ.get(variable, "")
    if not folder:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        folder = os.path.join(state, "dcmerge", name)
    return Path(os.path.abspath(folder))


def jobs_folder() -> Path:
    """Where jobs and runs are kept: the folder of ``DCMERGE_JOBS``, else ``dcmerge/jobs`` in the user's folder for states."""
    return state_folder(JOBS_VARIABLE, "jobs")


def write_json(path: Path, document: Any) -> None:
    """Write a document so that readers see the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        temporary.write_text(json.dumps(document), encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def read_json(path: Path) -> Any:
    """The document in a file; None where there is none, or it is damaged or larger than any of ours."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
