"""What a merge as a job does: every option of the command, as plain data that is checked before the job is accepted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from dcmerge.checkpoints import SAFETENSORS_SUFFIX
from dcmerge.checkpoints.regrouped import QKV, STORED
from dcmerge.errors import InputError
from dcmerge.evaluation.own_models import BenchSpecification
from dcmerge.jobs.checks import MethodChoice, checked_set, flag_of, limit_of, mix_of, one_method, scale_of
from dcmerge.merging.output import Target
from dcmerge.merging.recipe import ADAPTER, CONTENTS, DELTA, GIVEN, MODEL, check_tolerance
from dcmerge.methods import method
from dcmerge.vectors.fit import Fit


@dataclass(frozen=True)
class OwnModels:
    """Models by paths or names of the hub; ``fit`` and ``bench`` as ``Fit`` and ``BenchSpecification`` do."""

    base: str | None
    experts: Mapping[str, str]
    fit: Mapping[str, Any] = field(default_factory=dict)
    bench: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Any) -> OwnModels:
        """Raises InputError for anything but a base (or None) and experts by task."""
        if not isinstance(data, Mapping) or not set(data) <= {"base", "experts", "fit", "bench"}:
            raise InputError(f"models: expected base, experts, fit and bench, got {data!r:.200}")
        base, experts = data.get("base"), data.get("experts")
        if (
            not isinstance(experts, Mapping)
            or not experts
            or not all(isinstance(text, str) for pair in experts.items() for text in pair)
            or not (base is None or isinstance(base, str))
        ):
            raise InputError(f"models: expected a base and at least one expert by task, got {data!r:.200}")
        bench = data.get("bench") or {}
        if bench:
            BenchSpecification.of(bench)
        return cls(base, dict(experts), Fit.of(data.get("fit") or {}).to_data(), dict(bench))


@dataclass(frozen=True)
class Merge:
    """A merged model in a file or folder. Without a ``scale``, α is chosen on validation, or is the usual one without tasks.

    ``models`` names files instead of a set, whose name is then only for people. ``content``, ``adapter_rank``, ``task``,
    ``tolerance``, ``qkv`` and ``mix`` as in a recipe; ``card``, ``replace`` and ``dtype`` as in ``Target``. ``measure`` is a
    split on which the model is evaluated for its card, ``recipe`` a file that the recipe is written to as well.
    """

    kind: ClassVar[str] = "merge"
    steps: ClassVar[tuple[str, ...]] = ("target", "scale", "file", "verified")

    set: str
    method: MethodChoice
    out: str
    scale: float | None = None
    delta_only: bool = False
    scale_origin: str = GIVEN
    val_limit: int | None = None
    models: OwnModels | None = None
    content: str = MODEL
    adapter_rank: int | None = None
    dtype: str | None = None
    task: str | None = None
    card: bool = False
    replace: bool = False
    tolerance: float = 0.0
    qkv: str = STORED
    mix: Mapping[str, Any] = field(default_factory=dict)
    measure: str | None = None
    recipe: str | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Merge:
        """Raises InputError for anything that the merge could not run with, an existing file ``out`` included."""
        scale, origin = scale_of(data)
        models = OwnModels.of(data["models"]) if data.get("models") else None
        name = data.get("set")
        content = DELTA if flag_of("delta_only", data) else data.get("content", MODEL)
        texts = {key: _text(key, data) for key in ("dtype", "task", "measure", "recipe")}
        found = cls(
            checked_set(name) if models is None else str(name or "own models"),
            one_method(data),
            _path(data.get("out")),
            scale,
            content == DELTA,
            origin,
            limit_of("val_limit", data),
            models,
            _one_of("content", content, CONTENTS),
            data.get("adapter_rank"),
            card=flag_of("card", data),
            replace=flag_of("replace", data),
            tolerance=check_tolerance(data.get("tolerance", 0.0)),
            qkv=_one_of("qkv", data.get("qkv", STORED), (STORED, *QKV)),
            mix=mix_of(data),
            **texts,
        )
        found._check()
        return found

    def _check(self) -> None:
        if self.measure not in (None, "val", "test"):
            raise InputError(f"measure: expected val or test, got {self.measure!r}")
        if self.adapter_rank is not None and self.content != ADAPTER:
            raise InputError("adapter_rank: expected an adapter as the content, got another one")
        if self.recipe and os.path.lexists(self.recipe) and not self.replace:
            raise InputError(f"recipe: expected a new file, {self.recipe} exists already")
        self.checked_target()

    def checked_target(self) -> Target:
        """Where it is written; raises InputError where that exists or could not be written."""
        path = Path(self.out)
        if not path.parent.is_dir():
            raise InputError(f"out: expected an existing folder, got {path.parent}")
        target = self.target
        if not target.is_folder and os.path.lexists(path) and not self.replace:
            raise InputError(f"out: expected a new file, {path} exists already")
        target.check()
        return target

    @property
    def target(self) -> Target:
        return Target(Path(self.out), self.content, self.adapter_rank, self.card, replace=self.replace, dtype=self.dtype)

    @property
    def label(self) -> str:
        return f"Merge {self.set} by {method(self.method.slug).title}"


def _path(out: Any) -> str:
    """The absolute path of a .safetensors file, or of a folder, whose name has no such end."""
    good = isinstance(out, (str, Path)) and str(out) and "\0" not in str(out)
    if not good or Path(out).suffix not in ("", SAFETENSORS_SUFFIX):
        raise InputError(f"out: expected a file name that ends in {SAFETENSORS_SUFFIX}, or a folder, got {out!r}")
    return os.path.abspath(out)


def _text(name: str, data: Mapping[str, Any]) -> str | None:
    value = data.get(name)
    if value is not None and (not isinstance(value, str) or not value or "\0" in value):
        raise InputError(f"{name}: expected a text, got {value!r:.200}")
    return value


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise InputError(f"{name}: expected one of {', '.join(known)}, got {value!r:.200}")
    return value
