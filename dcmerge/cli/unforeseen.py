"""What is no one's bad input: the machine's limits in one sentence, and faults of the program with a way to report them."""

from __future__ import annotations

import os
import time
import traceback
from contextlib import suppress
from pathlib import Path

import torch

from dcmerge.checkpoints.paths import reason, shown
from dcmerge.runtime.state_files import state_folder

#: Where the reports of faults lie, and how many are kept.
FOLDER_VARIABLE, _KEPT = "DCMERGE_ERRORS", 20


def foreseen(error: BaseException) -> str | None:
    """One sentence where the machine, or the size of the numbers, is what stands in the way; None for a fault of the program."""
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
        return "this needs more memory than the machine has, or than this process may use"
    if isinstance(error, torch.linalg.LinAlgError):  # pyright: ignore[reportPrivateImportUsage] (documented, not exported)
        return "a decomposition did not converge: expected numbers whose squares float32 can hold, got larger ones"
    if isinstance(error, OSError):
        where = f" ({shown(error.filename)})" if error.filename else ""
        return f"the system refuses: {reason(error)}{where}"
    return None


def report(error: BaseException) -> str:
    """The sentence for a fault of the program, whose traceback is kept in a file."""
    what = f"{type(error).__name__}: {shown(reason(error) if isinstance(error, Exception) else error)[:200]}"
    file = _kept(error)
    attach = f", and attach {file}" if file else ""
    return f"dcmerge met something that it did not foresee ({what}). Nothing half-written is left. Please report it{attach}"


def _kept(error: BaseException) -> Path | None:
    """The file with the traceback; None where none can be written."""
    folder = state_folder(FOLDER_VARIABLE, "errors")
    file = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(traceback.format_exception(error))
        file.write_text(text, encoding="utf-8", errors="backslashreplace")
        for old in sorted(folder.glob("*.txt"))[:-_KEPT]:
            old.unlink()
        return file
    return None
