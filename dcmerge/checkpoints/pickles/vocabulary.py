"""All that a pickle may name: rebuilders of tensors, containers, and stubs for every class there is.

Nothing that a file names is ever imported. A known name becomes a function of this module that only describes a tensor;
every other one becomes a stub: an empty class of that name, whose instances keep the state they are given and whose call
is refused. So an object of a class that is not installed can be looked into, and ``os.system`` is a name like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from dcmerge.checkpoints.paths import shown

#: More class names than this are no model.
_MOST_NAMES = 10_000


class Refused(Exception):
    """The file holds what is not read; the text says what."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where numbers lie: ``key`` names the region of a file, ``first`` and ``count`` are in elements of ``dtype``."""

    key: tuple[int, str]
    dtype: torch.dtype
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor that was not made: its storage, and how torch would look at it."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A dtype or a kind of storage, which are named and never called."""

    dtype: torch.dtype


class _StubKind(type):
    """The class of the stubs: they can be named and instantiated empty, as ``pickle`` does for objects, but not called."""

    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise Refused(f"{cls.__qualname__}, which would be called when the file is opened")

    def __setattr__(cls, name: str, value: object) -> NoReturn:
        raise Refused(f"a change of the class {cls.__qualname__}")


class Stub(metaclass=_StubKind):
    """An object of a class that is not imported: only its state is kept. List- and dict-like ones swallow their items."""

    __slots__ = ("state",)

    def __new__(cls, *args: object, **kwargs: object) -> Stub:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        object.__setattr__(self, "state", state)

    def __setattr__(self, name: str, value: object) -> None:
        """A state of slots comes one by one; nothing that a walk could mistake for a module's is kept of it."""

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None: ...

    def extend(self, items: object) -> None: ...

    def add(self, item: object) -> None: ...


class Table(dict):
    """An OrderedDict, whose attributes (torch keeps versions there) are not kept."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None: ...


class _Known:
    """A function under a name in the file. Wrapped, because a pickle may try to set attributes of whatever it gets."""

    __slots__ = ("_function", "_name")

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)
        object.__setattr__(self, "_name", name)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise Refused(f"a change of {self._name}")

    def __call__(self, *args: Any) -> Any:
        try:
            return self._function(*args)
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError):
            raise Refused(f"{self._name} with arguments that make no sense") from None


def tensor(storage: object, offset: object, shape: object, stride: object, *_: object) -> Described:
    """``torch._utils._rebuild_tensor`` and ``_v2``: what follows the stride (gradients, hooks, metadata) is not read."""
    if not isinstance(storage, Storage):
        raise TypeError
    return Described(storage, storage.dtype, _count(offset), _counts(shape), _counts(stride))


def tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: object, hooks: object, dtype: Any, *_: object
) -> Described:
    """``_rebuild_tensor_v3``: a storage without a dtype of its own."""
    plain = tensor(storage, offset, shape, stride)
    return Described(plain.storage, dtype.dtype, plain.offset, plain.shape, plain.stride)


def parameter(data: object, *_: object) -> Described:
    """``_rebuild_parameter``."""
    if not isinstance(data, Described):
        raise TypeError
    return data


def tensor_of_type(rebuild: object, kind: Any, arguments: Any, *_: object) -> Any:
    """``_rebuild_from_type_v2``: a tensor with attributes of its own, which are not read."""
    named = f"{getattr(rebuild, '__qualname__', rebuild)}"
    if not (isinstance(rebuild, _Known) and rebuild._name in REBUILDERS):
        raise Refused(f"{named if not isinstance(rebuild, _Known) else rebuild._name}, which would be called to make a tensor")
    if getattr(kind, "__qualname__", None) not in PLAIN_TENSORS:
        raise Refused(f"a tensor of the type {getattr(kind, '__qualname__', type(kind).__name__)}")
    return rebuild(*arguments)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError
    return value


def _counts(values: object) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > 64:
        raise TypeError
    return tuple(_count(value) for value in values)


def _stub_of(kind: Any, base: object, state: object) -> Stub:
    """``copyreg._reconstructor``, as the oldest protocols make objects."""
    return _new_stub(kind)


def _new_stub(kind: Any, *_: object) -> Stub:
    if not issubclass(kind, Stub):
        raise TypeError
    return Stub.__new__(kind)


def _bytes(text: str, encoding: str) -> bytes:
    """``_codecs.encode``: how old protocols write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise TypeError
    return text.encode("latin1")


def _set(items: object = ()) -> set:
    if not isinstance(items, (list, tuple)):
        raise TypeError
    return set(items)


def _shape(values: object) -> tuple[int, ...]:
    return _counts(values)


def _nothing(*_: object) -> None:
    """Settings that transforms hold beside the model (a device, an interpolation): named, and not made."""


def _refusing(what: str) -> Callable[..., NoReturn]:
    def refuse(*_: object) -> NoReturn:
        raise Refused(what)

    return refuse


REBUILDERS = {
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": tensor_of_dtype,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
}
PLAIN_TENSORS = {"torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
_SETTINGS = (
    "torch.device",
    "torchvision.transforms.functional.InterpolationMode",
    "PIL.Image.Resampling",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.WindowsPath",
)
#: Tensors of other kinds, by what torch calls to make them.
_OTHER_TENSORS = {
    "torch.serialization._get_layout": "a sparse tensor",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without data",
    "torch._utils._rebuild_device_tensor_from_numpy": "a tensor of another device",
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **REBUILDERS,
    "torch._tensor._rebuild_from_type": tensor_of_type,
    "torch._tensor._rebuild_from_type_v2": tensor_of_type,
    "torch.tensor._rebuild_from_type": tensor_of_type,
    "collections.OrderedDict": Table,
    "torch.Size": _shape,
    "_codecs.encode": _bytes,
    **{f"{module}._reconstructor": _stub_of for module in ("copyreg", "copy_reg")},
    **{f"{module}.__newobj__": _new_stub for module in ("copyreg", "copy_reg")},
    **{f"{module}.{kind}": _set for module in ("builtins", "__builtin__") for kind in ("set", "frozenset")},
    **dict.fromkeys(_SETTINGS, _nothing),
    **{name: _refusing(what) for name, what in _OTHER_TENSORS.items()},
}
_DTYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "complex64",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
)
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "ComplexFloat": torch.complex64,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "Untyped": torch.uint8,
}


class Vocabulary:
    """Name -> what it stands for in one file, ``from_bytes`` being how a storage in a plain pickle is read."""

    def __init__(self, from_bytes: Callable[[object], Storage]) -> None:
        functions = {**_FUNCTIONS, "torch.storage._load_from_bytes": from_bytes}
        self._found: dict[str, object] = {name: _Known(name, function) for name, function in functions.items()}
        self._found |= {f"torch.{name}": Named(getattr(torch, name)) for name in _DTYPES}
        for module in ("torch", "torch.cuda", "torch.storage"):
            self._found |= {f"{module}.{kind}Storage": Named(dtype) for kind, dtype in _STORAGES.items()}

    def find(self, module: object, name: object) -> object:
        """A known name's meaning, or a stub. Never imports."""
        full = shown(f"{module}.{name}")[:200]
        if full not in self._found:
            if len(self._found) > _MOST_NAMES:
                raise Refused(f"more than {_MOST_NAMES} names of classes")
            self._found[full] = _StubKind(full, (Stub,), {"__slots__": (), "__module__": __name__, "__qualname__": full})
        return self._found[full]
