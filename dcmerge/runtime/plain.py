"""Dataclasses as plain data, without loss: a row of a comparison that was read back can be compared with a new one.

``Row.to_dict`` is a summary; this keeps which images were right (as a text of 0 and 1), which paired differences need.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar, Union

import torch
from torch import Tensor

from dcmerge.errors import InputError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """A dataclass such as Row, Comparison or Scale, as data that JSON can hold; tensors are yes and no for each image."""
    if isinstance(value, Tensor):
        return "".join("1" if hit else "0" for hit in value.tolist())
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], data: Any) -> T:
    """The dataclass that ``to_plain`` made this data of; raises InputError for data of another form.

    Fields that the data lacks get their defaults and unknown ones are left out: journals outlive versions.
    """
    try:
        return _read(kind, data)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"expected the data of a {kind.__name__}, got something else ({error})") from None


def _read(hint: Any, data: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in inner if kind is not type(None)]
        return None if data is None else _read(kinds[0], data)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        known = [field.name for field in dataclasses.fields(hint) if field.name in data]
        return hint(**{name: _read(hints[name], data[name]) for name in known})
    if hint is Tensor:
        return torch.tensor([{"1": True, "0": False}[hit] for hit in data], dtype=torch.bool)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(data)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {name: _read(inner[1], item) for name, item in data.items()}
    if origin is tuple:
        kinds = [inner[0]] * len(data) if inner[-1] is Ellipsis else inner
        return tuple(_read(kind, item) for kind, item in zip(kinds, data, strict=True))
    return data
