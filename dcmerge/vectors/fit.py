"""What a person may choose about how a set is fitted together: which parameters, whose vocabulary, which of two weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Self

from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.state_dicts import LIVE, WEIGHTS
from dcmerge.errors import InputError

BASE, UNION = "base", "union"
VOCABULARIES = (BASE, UNION)
_CHOICES = {"vocabulary": VOCABULARIES, "weights": WEIGHTS}


@dataclass(frozen=True)
class Fit:
    """How the files of a set become one set. The defaults merge what the base and all experts have in common.

    Attributes:
        only: patterns of names (``layers.*``): nothing else is merged. Empty for all.
        without: patterns of names that are not merged. The base's tensor stays in the place of both.
        vocabulary: "base" writes the base's tokens, "union" those of the experts too.
        weights: "live" or "ema", where a training state holds both.
        different_bases: adapters that were trained on different bases are merged all the same.

    Raises InputError for a value that none of them can have.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    vocabulary: str = BASE
    weights: str = LIVE
    different_bases: bool = False

    def __post_init__(self) -> None:
        for name in ("only", "without"):
            patterns = getattr(self, name)
            if isinstance(patterns, str) or not all(isinstance(one, str) and one for one in patterns):
                raise InputError(f"{name}: expected patterns of parameter names, got {patterns!r:.200}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r:.200}")
        if not isinstance(self.different_bases, bool):
            raise InputError(f"different_bases: expected true or false, got {self.different_bases!r:.200}")

    @classmethod
    def of(cls, data: Any) -> Self:
        """From plain data, as ``to_data`` gives it; raises InputError that names the field."""
        names = [one.name for one in fields(cls)]
        if not isinstance(data, Mapping):
            raise InputError(f"fit: expected {', '.join(names)}, got {data!r:.200}")
        if unknown := sorted(set(data) - set(names)):
            raise InputError(f"fit: expected {', '.join(names)}, got the unknown key {shown(unknown[0])!r:.200}")
        lists = {name: _patterns(name, data[name]) for name in ("only", "without") if name in data}
        return cls(**{**data, **lists})

    def to_data(self) -> dict[str, Any]:
        """Plain data of what differs from the defaults; empty where nothing does."""
        usual = asdict(type(self)())
        found = {name: value for name, value in asdict(self).items() if value != usual[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    def more_without(self, patterns: Iterable[str]) -> Self:
        """The same with further patterns of names that are not merged."""
        return replace(self, without=(*self.without, *patterns))

    def excludes(self, name: str) -> str:
        """Why a parameter of that name is not merged, in words; empty where it is."""
        if self.only and not matches(name, self.only):
            return f"not among {', '.join(self.only)}, which alone is merged"
        found = [pattern for pattern in self.without if matches(name, (pattern,))]
        return f"left out by choice ({found[0]})" if found else ""

    def check_patterns(self, names: Sequence[str]) -> None:
        """Raises InputError for a pattern that no name matches: it was meant for something."""
        for option in ("only", "without"):
            for pattern in getattr(self, option):
                if not any(matches(name, (pattern,)) for name in names):
                    some = ", ".join(map(shown, names[:3]))
                    raise InputError(
                        f"{option}: expected a pattern of parameter names such as {some}, got {shown(pattern)!r}, which none of "
                        f"the {len(names)} matches"
                    )


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name matches one of the patterns, in which * stands for any letters; a pattern may also be a whole name."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _patterns(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"{name}: expected a list of patterns, got {value!r:.200}")
    return tuple(value)
