"""From a pickle to a safetensors file: the reading happens in a process of its own (``apart``), here is what is around it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from dcmerge.checkpoints.paths import STATE_DICT_SIZE_LIMIT, checked_file, reason, shown
from dcmerge.checkpoints.pickles.apart import memory_for, seconds_for
from dcmerge.errors import InputError
from dcmerge.runtime.processes import environment, module_command

#: Reading from a slow disk takes longer than the processor's time.
_WAITING = 10


@dataclass(frozen=True)
class Converted:
    """What was read: how many tensors, from what, what lay beside them, and the limits that this system could not set."""

    tensors: int
    source: str
    left_out: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


def convert_pickle(old: str | os.PathLike[str], new: str | os.PathLike[str]) -> Converted:
    """Write the tensors of a pickle (``.pt``, ``.bin``, ``.pkl``) to a safetensors file, under ``module.state_dict()``'s names.

    The pickle is not executed: see ``vocabulary``. It is read in a process with a memory and a time limit. ``new`` appears
    whole or not at all; an existing file is replaced.

    Raises:
        InputError: the file cannot be read or written, or holds anything but tensors in modules, lists, tables; it is named.
    """
    old, new = checked_file(old), Path(new)
    size = old.stat().st_size
    if size > STATE_DICT_SIZE_LIMIT:
        raise InputError(f"{shown(old)} has {size} bytes, more than the limit of {STATE_DICT_SIZE_LIMIT} for pickles.")
    if not new.parent.is_dir():
        raise InputError(f"Cannot write {shown(new)}: there is no folder {shown(new.parent)}.")
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{new.name[:100]}.", suffix=".part", dir=new.parent))
    except OSError as error:
        raise InputError(f"Cannot write {shown(new)}: {reason(error)}.") from None
    try:
        told = _read_apart(old.absolute(), folder.absolute() / "converted.safetensors", size)
        _replace(folder / "converted.safetensors", new)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Converted(told["tensors"], told["source"], tuple(told["left_out"]), tuple(told["lacking"]))


def pickled_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The same tensors in memory, for small files (a head). Raises InputError as ``convert_pickle`` does."""
    with tempfile.TemporaryDirectory() as folder:
        convert_pickle(path, Path(folder) / "tensors.safetensors")
        return {name: value.clone() for name, value in load_file(Path(folder) / "tensors.safetensors").items()}


def _read_apart(old: Path, new: Path, size: int) -> dict:
    command = module_command("dcmerge.checkpoints.pickles.apart", str(old), str(new))
    try:
        done = subprocess.run(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_WAITING * seconds_for(size),
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"Cannot convert {shown(old)}: reading it took longer than {_WAITING * seconds_for(size)} s; nothing was written."
        ) from None
    if done.returncode != 0:
        raise InputError(f"Cannot convert {shown(old)}: {_death(done, size)}; nothing was written.")
    told = json.loads(done.stdout.splitlines()[-1])
    if "refused" in told:
        raise InputError(
            f"{shown(old)} holds {told['refused']}: only tensors, and modules as tables of tensors, are read "
            "from a pickle; nothing was executed or written."
        )
    if "error" in told:
        raise InputError(f"Cannot convert {shown(old)}: {told['error'].rstrip('.')}; nothing was written.")
    return told


def _death(done: subprocess.CompletedProcess[bytes], size: int) -> str:
    """Why the reading process ended without an answer."""
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        return f"reading it took more than the {seconds_for(size)} s of processor time that such a file may take"
    if b"MemoryError" in done.stderr or b"alloc" in done.stderr:
        return f"it needs more memory than the {memory_for(size) >> 20} MiB that such a file may take"
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return f"the process that read it was ended by the file ({how})"


def _replace(temporary: Path, target: Path) -> None:
    try:
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(f"Cannot write {shown(target)}: {reason(error)}.") from None
