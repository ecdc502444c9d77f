"""The mixer: how much each expert counts in a merge, and how much of everything is taken at which depth.

The coefficient of expert t in block l is w_t · p_t(l): its task vector is multiplied by it before the merge. What comes out is
multiplied by p(l), the profile of α. A profile is a list of values over the blocks, the first at the first block, the last at the
last, those between interpolated linearly: one value is constant, two are linear as in LiNeS (arXiv 2410.17146), as many as there
are blocks are free. Parameters outside the blocks have the first value, as in LiNeS and in mergekit's gradients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.vectors.naming import Depth

Profile = tuple[float, ...]
CONSTANT: Profile = (1.0,)
#: Beyond it weights only overflow, as α does.
LARGEST = 1000.0
#: More values than any model has blocks are no profile.
_MOST_BLOCKS = 10_000
_FORMS = "constant, constant:0.8, linear:0.5:1.5 (the first and the last block) or blocks:0.5,1,0.8"
_PAIR = re.compile(r"\s*([^,\s].*?)\s*=([^=,]*)(?:,|$)")


@dataclass(frozen=True)
class Mix:
    """Weights and profiles by expert, 1 where there is none; ``depth`` is the profile of α. ``of`` makes one, checked."""

    weights: Mapping[str, float] = field(default_factory=dict)
    depths: Mapping[str, Profile] = field(default_factory=dict)
    depth: Profile = CONSTANT

    @classmethod
    def of(cls, weights: Mapping[str, Any] | None = None, depths: Mapping[str, Any] | None = None, depth: Any = CONSTANT) -> Self:
        """From numbers by expert, and profiles as text or as lists of numbers; raises InputError that names what is wrong."""
        found = {name: checked_weight(f"weight of {shown(name)}", value) for name, value in _named("weights", weights).items()}
        own = {name: profile(value, f"depth of {shown(name)}") for name, value in _named("depths", depths).items()}
        return cls(
            found,
            own,
            CONSTANT if depth is None else profile(depth),
        )

    def trimmed(self) -> Mix:
        """Without what has no effect: two mixes that do the same to a set are equal then."""
        return Mix(
            {name: value for name, value in self.weights.items() if value != 1},
            {name: values for name, values in self.depths.items() if values != CONSTANT},
            self.depth,
        )

    @classmethod
    def from_data(cls, data: Any) -> Self:
        """From a recipe's {"weights", "depths", "depth"}."""
        known = ("weights", "depths", "depth")
        if not isinstance(data, Mapping) or any(name not in known for name in data):
            raise InputError(f"mix: expected {', '.join(known)}, got {data!r:.200}")
        return cls.of(**data)

    def to_data(self) -> dict[str, Any]:
        """Plain data, from which ``from_data`` makes the same again; empty where there is nothing to tell."""
        found: dict[str, Any] = {"weights": dict(self.weights)} if self.weights else {}
        found |= {"depths": {name: list(values) for name, values in self.depths.items()}} if self.depths else {}
        return found | ({"depth": list(self.depth)} if self.depth != CONSTANT else {})

    @property
    def key(self) -> tuple[Any, ...]:
        """The same as a value that can be hashed."""
        return tuple(sorted(self.weights.items())), tuple(sorted(self.depths.items())), self.depth

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self.trimmed() != Mix()

    @property
    def has_profiles(self) -> bool:
        """Whether anything depends on the depth."""
        return any(len(values) > 1 for values in (*self.depths.values(), self.depth))

    @property
    def text(self) -> str:
        """ "weights cats 1.2; α over depth linear:0.5:1.5" for people; empty where nothing is changed."""
        parts = [", ".join(f"{name} {value:g}" for name, value in self.weights.items())]
        parts[0] = f"weights {parts[0]}" if parts[0] else ""
        parts += [f"{name} over depth {profile_text(values)}" for name, values in self.depths.items()]
        parts += [f"α over depth {profile_text(self.depth)}"] if self.depth != CONSTANT else []
        return "; ".join(filter(None, parts))

    def of_tasks(self, tasks: Sequence[str]) -> Mix:
        """The same as far as it is about these experts."""
        return Mix(
            {name: value for name, value in self.weights.items() if name in tasks},
            {name: values for name, values in self.depths.items() if name in tasks},
            self.depth,
        )

    def check(self, tasks: Sequence[str], *, has_blocks: bool) -> None:
        """Raises InputError for an expert that is not there, and for a profile where no name tells a block."""
        for what, named in (("weights", self.weights), ("depth", self.depths)):
            if unknown := [name for name in named if name not in tasks]:
                raise InputError(f"{what}: expected experts of {', '.join(map(shown, tasks))}, got {shown(unknown[0])}")
        if self.has_profiles and not has_blocks:
            raise InputError("depth: expected a model with numbered blocks, got names without numbers, which have no depth")

    def coefficient(self, task: str, depth: Depth | None) -> float:
        """w_t · p_t of one expert at a parameter's place; None is outside the blocks."""
        return self.weights.get(task, 1.0) * value_at(self.depths.get(task, CONSTANT), depth)

    def alpha(self, depth: Depth | None) -> float:
        """What α is multiplied by at a parameter's place."""
        return value_at(self.depth, depth)


def value_at(values: Profile, depth: Depth | None) -> float:
    """A profile's value, interpolated between its neighbours; outside the blocks its first, of a single block its last."""
    if depth is None or len(values) == 1:
        return values[0]
    place = (depth.share if depth.blocks > 1 else 1.0) * (len(values) - 1)
    before = min(int(place), len(values) - 2)
    part = place - before
    return (1 - part) * values[before] + part * values[before + 1]


def checked_weight(name: str, value: Any) -> float:
    """A finite number as a float; raises InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        raise InputError(f"{name}: expected a number in [-{LARGEST:g}, {LARGEST:g}], got {value!r:.100}")
    return float(value)


def profile(value: Any, name: str = "depth") -> Profile:
    """A profile from a number, a list of numbers or its text; equal values are one. Raises InputError for anything else."""
    if isinstance(value, str):
        value = _parsed(value, name)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= _MOST_BLOCKS:
        raise InputError(f"{name}: expected {_FORMS}, or a list of numbers, got {value!r:.100}")
    found = tuple(checked_weight(name, one) for one in value)
    return found[:1] if len(set(found)) == 1 else found


def _parsed(text: str, name: str) -> list[float]:
    """The numbers of "linear:0.5:1.5"."""
    kind, colon, rest = text.strip().partition(":")
    parts = rest.split("," if kind == "blocks" else ":") if colon else []
    counts = {"constant": (0, 1), "linear": (2, 2), "blocks": (1, _MOST_BLOCKS)}
    low, high = counts.get(kind, (1, 0))
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        low, high = 1, 0
        numbers = []
    if not low <= len(numbers) <= high:
        raise InputError(f"{name}: expected {_FORMS}, got {text!r:.100}")
    return numbers or [1.0]


def profile_text(values: Profile) -> str:
    """As the command line takes it."""
    if len(values) == 1:
        return f"constant:{_digits(values[0])}"
    if len(values) == 2:
        return f"linear:{_digits(values[0])}:{_digits(values[1])}"
    return f"blocks:{','.join(map(_digits, values))}"


def parsed_weights(text: str) -> dict[str, float]:
    """ "cats=1.2,dogs=0.8" as numbers by expert; raises InputError for anything else, and for a name that comes twice."""
    found: dict[str, float] = {}
    place = 0
    while place < len(text) or not text:
        pair = _PAIR.match(text, place)
        value = _number(pair[2]) if pair else None
        if pair is None or value is None:
            raise InputError(f"weights: expected NAME=NUMBER pairs as in cats=1.2,dogs=0.8, got {text!r:.200}")
        if pair[1] in found:
            raise InputError(f"weights: expected every expert once, got {shown(pair[1])} twice")
        found[pair[1]] = checked_weight(f"weight of {shown(pair[1])}", value)
        place = pair.end()
    return found


def weights_text(weights: Mapping[str, float]) -> str:
    """As ``parsed_weights`` reads it."""
    return ",".join(f"{name}={_digits(value)}" for name, value in weights.items())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _digits(value: float) -> str:
    """With all digits that it has."""
    return text if float(text := f"{value:g}") == value else repr(value)


def _named(what: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
        raise InputError(f"{what}: expected experts with values, got {value!r:.200}")
    return value
