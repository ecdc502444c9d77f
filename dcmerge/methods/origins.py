"""Methods that are not built in: where they come from, what is asked of them, and errors that their code makes."""

from __future__ import annotations

import hashlib
import re
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dcmerge.checkpoints import LowRank
from dcmerge.errors import Cancelled, InputError

if TYPE_CHECKING:
    from dcmerge.methods.registry import Method
    from dcmerge.vectors.layers import Layer
    from dcmerge.vectors.task_vectors import Delta

_PROJECT, _TYPED = "dcmerge", "__main__"
_SLUG = re.compile(r"[a-z][a-z0-9_]*")
#: What functions that merge, and widgets beside a method's own, are called: no parameter can have these names.
RESERVED = {
    *("vectors", "slug", "bench", "progress", "cancelled", "dtype", "target", "scale", "scale_origin", "task", "path"),
    *("alpha", "delta_only", "layer", "layers", "calibration", "prepared"),
}


@dataclass(frozen=True)
class Origin:
    """The plugin that brought a method: the name of its file or package, and the SHA-256 of its content.

    ``path`` is where the file lies; None for an installed package.
    """

    name: str
    sha256: str
    path: str | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """ "from mine.py", or "from the package merge-tools"."""
        return f"from {self.name}" if self.path or self.name == _TYPED else f"from the package {self.name}"

    def to_dict(self) -> dict[str, str]:
        """Name and hash, which a recipe tells; where the file lies is nobody else's business."""
        return {"name": self.name, "sha256": self.sha256}


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def origin_of(function: Callable[..., Any]) -> Origin | None:
    """Of a method that a script registers by itself: the script. None for what is built in."""
    module = getattr(function, "__module__", None) or ""
    if module.partition(".")[0] == _PROJECT:
        return None
    code = getattr(function, "__code__", None)
    path = Path(code.co_filename if code else "")
    if path.is_file():
        return Origin(path.name, sha256_of(path.read_bytes()), str(path.absolute()))
    return Origin(module, sha256_of(code.co_code if code else b""))  # typed into an interpreter


def check_foreign(method: Method, needs: Collection[str], extras: Collection[str]) -> None:
    """Raises InputError for a method from outside that an interface could not show or a command could not name."""
    slug = method.slug
    if not isinstance(slug, str) or not _SLUG.fullmatch(slug):
        raise InputError(f"expected a slug of small letters, digits and _, got {slug!r}")
    for name in ("title", "idea", "formula", "source", "returns"):
        if not isinstance(getattr(method, name), str) or not getattr(method, name):
            raise InputError(f"{slug}: expected a text as its {name}, got {getattr(method, name)!r}")
    if unknown := [need for need in method.needs if need not in needs]:
        raise InputError(f"{slug}: expected needs among {', '.join(needs)}, got {unknown[0]!r}")
    if method.extra and method.extra not in extras:
        raise InputError(f"{slug}: expected an extra among {', '.join(extras)}, got {method.extra!r}")
    if not isinstance(method.usual_scale, (int, float)) or not 0 < method.usual_scale <= 5:
        raise InputError(f"{slug}: expected a usual scale in (0, 5], got {method.usual_scale!r}")
    for name, declared in method.parameters.items():
        if name in RESERVED:
            raise InputError(f"{slug}: expected another name for the parameter {name}, which has a meaning already")
        declared.constraint.check(f"{slug}: the default of {name}", declared.default)
    method.check(method.quick)


@contextmanager
def guarded(method: Method, where: str) -> Iterator[None]:
    """What goes wrong in a plugin's code is told in a sentence that names it; a built-in method's mistake is a bug of ours."""
    try:
        yield
    except (InputError, Cancelled):
        raise
    except Exception as error:
        if method.origin is None:
            raise
        raise InputError(f"{method.slug} ({method.origin.label}): {where}: {told(error, method.origin.path)}") from error


def told(error: BaseException, path: str | None) -> str:
    """What was raised, in one line, and where in the plugin's own file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if path and frame.filename == path]
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"line {lines[-1]} raised {what}" if lines else f"raised {what}"


def checked_shape(method: Method, layer: Layer, merged: Delta) -> Delta:
    """What a layer function returned. Raises InputError where a plugin returns no delta of its parameter."""
    if method.origin is None:
        return merged
    if not isinstance(merged, (torch.Tensor, LowRank)) or tuple(merged.shape) != layer.shape:
        got = tuple(merged.shape) if isinstance(merged, (torch.Tensor, LowRank)) else type(merged).__name__
        raise InputError(
            f"{method.slug} ({method.origin.label}): {layer.name}: expected a tensor of shape {layer.shape}, got {got}"
        )
    return merged
