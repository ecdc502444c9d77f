"""What a sweep varies: parameters of a method with their ranges and scales, as they are declared, α, and the mixer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dcmerge.errors import InputError
from dcmerge.merging.recipe import check_scale
from dcmerge.methods import Method
from dcmerge.methods.declare import Flag, Number, value_text
from dcmerge.studies.sweep.mixing import FACTOR, FIRST, LAST, WEIGHT, is_mix

#: The name of α among the axes, other words for it, and how it is usually looked for.
SCALE, _ALIASES = "scale", ("scale", "alpha", "α")
ALPHA = Number("Scale α", "Factor on the merged task vector.", 0.01, 10, 0.05, soft_high=3, soft_low=0.1)
LOG, LINEAR = "log", "linear"
_FORM = "NAME, NAME=LOW:HIGH, NAME=LOW:HIGH:log, NAME=LOW:HIGH:COUNT or NAME=A,B,C"
#: Values a range has at least in a grid, and significant digits of values on a logarithmic scale.
_LEAST, _DIGITS = 2, 3


@dataclass(frozen=True)
class Axis:
    """One thing that is varied: between two ends, or one of some ``options``. ``count``: how many values a grid takes.

    ``text`` is what it was written as, from which ``axis`` makes it again.
    """

    name: str
    text: str
    low: float = 0.0
    high: float = 0.0
    step: float = 0.0
    log: bool = False
    integer: bool = False
    options: tuple[Any, ...] = ()
    count: int | None = None

    @property
    def is_range(self) -> bool:
        return not self.options

    def rounded(self, value: float) -> float | int:
        """To a value that a person would write: on the step of the declaration, or with three digits on a logarithmic scale."""
        if self.integer:
            return round(value)
        if self.log:
            value = float(f"{value:.{_DIGITS}g}")
        elif self.step:
            value = round(round(value / self.step) * self.step, 10)
        return min(max(value, self.low), self.high)

    def values(self, count: int) -> tuple[Any, ...]:
        """That many values over the range, ends included, evenly on its scale; fewer where they would be equal."""
        if self.options:
            return self.options
        count = self.count or max(_LEAST, count)
        shares = [place / max(1, count - 1) for place in range(count)]
        if self.log:
            found = [self.low * (self.high / self.low) ** share for share in shares]
        else:
            found = [self.low + (self.high - self.low) * share for share in shares]
        return tuple(dict.fromkeys(self.rounded(value) for value in found))


def axis(method: Method, text: str) -> Axis:
    """From ``rho``, ``rho=1:20``, ``rho=1:20:log``, ``rho=1:20:8`` or ``rho=1,2,5``; what is not said is as declared.

    ``weight.NAME``, ``depth.first`` and ``depth.last`` are the mixer's (see ``mix_of``). Raises InputError for a parameter that
    the method does not have, and for values that it does not take.
    """
    # An expert may have "=" in its name.
    split = text.rpartition("=") if text.startswith(WEIGHT) and "=" in text else text.partition("=")
    name, equals, values = (part.strip() for part in split)
    if name in _ALIASES:
        name, constraint = SCALE, ALPHA
    elif name in method.parameters:
        constraint = method.parameters[name].constraint
    elif is_mix(name):
        constraint = FACTOR
    else:
        known = ", ".join([*method.parameters, SCALE, f"{WEIGHT}EXPERT", FIRST, LAST])
        raise InputError(f"over: expected one of {known} for {method.slug}, got {name!r}")
    if equals and not values:
        raise InputError(f"over: expected {_FORM}, got {text!r}")
    if ":" in values or (not values and isinstance(constraint, Number)):
        return _range(name, text, constraint, values)
    if values:
        options = tuple(dict.fromkeys(_value(name, constraint, one) for one in values.split(",")))
    else:
        options = (True, False) if isinstance(constraint, Flag) else getattr(constraint, "options", ())
    return Axis(name, text, options=options)


def _value(name: str, constraint: Any, text: str) -> Any:
    value = constraint.parse(name, text.strip())
    return check_scale(value) if name == SCALE else value


def _range(name: str, text: str, constraint: Any, values: str) -> Axis:
    if not isinstance(constraint, Number):
        raise InputError(f"{name}: expected some of its values ({constraint.expected}), got the range {values!r}")
    low, high = constraint.usual_range
    words = values.split(":") if values else []
    log, count = constraint.log, None
    if len(words) == 1 or len(words) > 4:
        raise InputError(f"over: expected {_FORM}, got {text!r}")
    if words:
        low, high = (_end(name, constraint, word) for word in words[:2])
    for word in words[2:]:
        if word.strip() in (LOG, LINEAR):
            log = word.strip() == LOG
        elif word.strip().isdigit() and int(word) >= 1:
            count = int(word)
        else:
            raise InputError(f"{name}: expected {LOG}, {LINEAR} or a number of values after the range, got {word!r}")
    if not low < high:
        raise InputError(f"{name}: expected a range from a lower to a higher value, got {low:g} to {high:g}")
    if log and low <= 0:
        raise InputError(f"{name}: expected a range above 0 for a logarithmic scale, got {low:g} to {high:g}")
    return Axis(name, text, low, high, constraint.step, log, constraint.integer, count=count)


def _end(name: str, constraint: Number, text: str) -> float:
    value = constraint.parse(name, text.strip())
    if value is None:
        raise InputError(f"{name}: expected a number as an end of the range, got {text!r}")
    return value


def axes(method: Method, texts: Sequence[str]) -> tuple[Axis, ...]:
    """All axes; raises InputError where there is none, and for one that comes twice."""
    found = tuple(axis(method, text) for text in texts)
    names = [one.name for one in found]
    if not found:
        raise InputError(f"over: expected at least one of {', '.join([*method.parameters, SCALE])} to vary, got none")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"over: expected every name once, got {', '.join(twice)} more than once")
    if method.fixed_scale and SCALE in names:
        raise InputError(
            f"over: expected parameters of {method.slug}, got {SCALE}, which is {method.usual_scale:g}: {method.fixed_scale}"
        )
    return found


def settled(method: Method, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Checked parameters in which those that do not matter, as another one says, have their default: one point, one name."""
    values = method.check(parameters)
    idle = idle_parameters(method, values)
    return {name: method.parameters[name].default if name in idle else value for name, value in values.items()}


def of_method(cell: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are the method's own: neither α nor the mixer's."""
    return {name: value for name, value in cell.items() if name != SCALE and not is_mix(name)}


def idle_parameters(method: Method, values: Mapping[str, Any]) -> set[str]:
    """The parameters that do not matter with these values."""
    conditions = {name: getattr(declared.constraint, "when", None) for name, declared in method.parameters.items()}
    return {name for name, when in conditions.items() if when and values.get(when[0]) not in when[1]}


def cells(method: Method, fixed: Mapping[str, Any], over: Sequence[Axis], trials: int) -> list[dict[str, Any]]:
    """The points of a grid of at most ``trials``, the last axis moving fastest and α before all others.

    Every range without a count of its own gets as many values as fit; points that differ only in what does not matter are one.
    Raises InputError where not even the fewest values fit.
    """
    ordered = sorted(over, key=lambda one: one.name == SCALE)
    given = math.prod(len(one.values(1)) for one in ordered if one.options or one.count)
    free = [one for one in ordered if one.is_range and not one.count]
    each = max(_LEAST, math.floor((trials / given) ** (1 / len(free)) + 1e-9)) if free else 0
    found: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*(one.values(each) for one in ordered)):
        cell = dict(zip((one.name for one in ordered), values, strict=True))
        found.setdefault(point_key(method, fixed, cell), cell)
    if len(found) > trials:
        raise InputError(f"trials: expected at least {len(found)}, which this grid has, got {trials}")
    return list(found.values())


def point_key(method: Method, fixed: Mapping[str, Any], cell: Mapping[str, Any]) -> str:
    """The same for two points that are the same merge at the same α (or both with α to be chosen)."""
    values = settled(method, {**fixed, **of_method(cell)}) | {name: cell[name] for name in sorted(filter(is_mix, cell))}
    return ", ".join([*(f"{name}={value_text(value)}" for name, value in values.items()), f"{SCALE}={cell.get(SCALE, 'chosen')}"])


def axis_text(one: Axis) -> str:
    """What is varied, in words: "rho from 1 to 20 (logarithmic)"."""
    if one.options:
        return f"{one.name} among {', '.join(map(value_text, one.options))}"
    return f"{one.name} from {one.low:g} to {one.high:g}{' (logarithmic)' if one.log else ''}"
