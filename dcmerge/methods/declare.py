"""A method's parameters as data: from one declaration come sliders, options, validation, sweeps, the catalogue and tests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dcmerge.errors import InputError


@dataclass(frozen=True)
class Number:
    """A number in [low, high]. ``auto`` names what None means; without it None is refused.

    ``soft_low`` and ``soft_high`` end sliders and sweeps early; ``log``: its values are spread by ratios rather than by
    differences. ``when``: another parameter and the values of it with which alone this one matters.
    """

    title: str
    help: str
    low: float
    high: float
    step: float
    integer: bool = False
    auto: str = ""
    soft_high: float | None = None
    soft_low: float | None = None
    log: bool = False
    when: tuple[str, tuple[Any, ...]] | None = None

    @property
    def usual_range(self) -> tuple[float, float]:
        """Where values are usually looked for."""
        return self.low if self.soft_low is None else self.soft_low, self.high if self.soft_high is None else self.soft_high

    @property
    def expected(self) -> str:
        noun = "an integer" if self.integer else "a number"
        return f"{noun} in [{self.low:g}, {self.high:g}]" + (" or auto" if self.auto else "")

    def check(self, name: str, value: Any) -> float | int | None:
        """The value as int or float; raises InputError with what was expected and what came."""
        if value is None and self.auto:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not self.low <= value <= self.high
            or (self.integer and value != int(value))
        ):
            raise InputError(f"{name}: expected {self.expected}, got {value!r}")
        return int(value) if self.integer else float(value)

    def parse(self, name: str, text: str) -> float | int | None:
        """The value written as text; ``auto`` is None."""
        if self.auto and text.lower() in ("auto", "none"):
            return None
        try:
            return self.check(name, int(text) if self.integer else float(text))
        except ValueError as error:
            raise (
                error if isinstance(error, InputError) else InputError(f"{name}: expected {self.expected}, got {text!r}")
            ) from None

    def invalid(self) -> list[Any]:
        """Values that ``check`` must refuse."""
        return [self.low - 1, self.high + 1, math.nan, math.inf, "text", True, *([] if self.auto else [None])]


@dataclass(frozen=True)
class Choice:
    """One of a few names, each with a sentence of help."""

    title: str
    help: str
    options: tuple[str, ...]

    @property
    def expected(self) -> str:
        return "one of " + ", ".join(self.options)

    def check(self, name: str, value: Any) -> str:
        if value not in self.options:
            raise InputError(f"{name}: expected {self.expected}, got {value!r}")
        return value

    def parse(self, name: str, text: str) -> str:
        return self.check(name, text)

    def invalid(self) -> list[Any]:
        return ["no such option", 3, None]


@dataclass(frozen=True)
class Flag:
    """On or off."""

    title: str
    help: str
    expected: str = "on or off"

    def check(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InputError(f"{name}: expected {self.expected}, got {value!r}")
        return value

    def parse(self, name: str, text: str) -> bool:
        words = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise InputError(f"{name}: expected {self.expected}, got {text!r}")
        return words[text.lower()]

    def invalid(self) -> list[Any]:
        return ["on", 1, None]


Constraint = Number | Choice | Flag


@dataclass(frozen=True)
class Declared:
    """A parameter of a method: name, constraint and default."""

    name: str
    constraint: Constraint
    default: Any


def value_text(value: Any) -> str:
    """A parameter's value as ``--set`` takes it."""
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def values_text(values: Mapping[str, Any]) -> str:
    """ "density=0.2, aggregate=mean", as the command line takes them."""
    return ", ".join(f"{name}={value_text(value)}" for name, value in values.items())
