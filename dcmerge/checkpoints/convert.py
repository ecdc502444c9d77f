"""Any checkpoint as one safetensors file: out of a pickle, and under the other naming scheme where one is asked for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dcmerge.checkpoints.base import Checkpoint, TensorInfo
from dcmerge.checkpoints.opening import open_checkpoint
from dcmerge.checkpoints.paths import checked_path, shown
from dcmerge.checkpoints.pickles import Converted, convert_pickle
from dcmerge.checkpoints.schemes import hugging_face_weights, open_clip_weights
from dcmerge.checkpoints.suffixes import SAFETENSORS_SUFFIX
from dcmerge.checkpoints.writing import write_safetensors
from dcmerge.errors import InputError

_TO = {"open_clip": open_clip_weights, "hugging_face": hugging_face_weights}
SCHEMES = tuple(_TO)


def convert(old: str | os.PathLike[str], new: str | os.PathLike[str], *, to: str | None = None) -> Converted:
    """Write one safetensors file with the tensors of ``old``; with ``to`` under open_clip's or Hugging Face's names of CLIP.

    A single file that is no safetensors file is read as a pickle that may hold anything (see ``pickles``), folders and
    safetensors files are opened as everywhere. Raises InputError where it cannot be read or written, or has no such names.
    """
    if to is not None and to not in _TO:
        raise InputError(f"to: expected one of {', '.join(_TO)}, got {to!r}")
    old = checked_path(old)
    if old.is_dir() or old.name.endswith((SAFETENSORS_SUFFIX, ".json")):
        return _rewrite(open_checkpoint(old), Path(new), to, Converted(0, shown(old)))
    if to is None:
        return convert_pickle(old, new)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / f"plain{SAFETENSORS_SUFFIX}"
        found = convert_pickle(old, plain)
        return _rewrite(open_checkpoint(plain), Path(new), to, found)


def _rewrite(old: Checkpoint, new: Path, to: str | None, found: Converted) -> Converted:
    """The same tensors under the names of a scheme. They are mapped from the file: only what is put together takes memory."""
    tensors = {name: old.tensor(name) for name in old.infos}
    if to is not None:
        tensors = _TO[to](tensors)
    infos = {name: TensorInfo(tuple(value.shape), value.dtype) for name, value in tensors.items()}
    write_safetensors(new, tensors.items(), infos, old.metadata)
    return Converted(len(infos), found.source, found.left_out, found.lacking)
