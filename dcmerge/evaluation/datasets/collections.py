"""What every kind of data set opens to, and how its failure is told."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from dcmerge.checkpoints.paths import reason, shown
from dcmerge.errors import InputError
from dcmerge.evaluation.datasets.pictures import Pictures

#: The optional extra that brings the packages which some data sets' files need.
EXTRA = "hf"


@dataclass(frozen=True, eq=False)
class Collection:
    """A data set as it lies on disk. ``parts``: its own splits (train, val, test) or ``all``; ``classes`` by label,
    empty where the files name none.
    """

    source: str
    classes: tuple[str, ...]
    parts: Mapping[str, Pictures]


def needs(module: str, what: str) -> None:
    """Raises InputError with the way to install an optional package where it is missing."""
    if importlib.util.find_spec(module) is None:
        raise InputError(f"{what} needs the package {module}: pip install dcmerge[{EXTRA}]")


@contextmanager
def told(what: str, where: object) -> Iterator[None]:
    """Whatever a library raises about files that are not as it expects them becomes one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # torchvision, scipy, h5py and datasets fail in many ways, none of them listed anywhere
        raise InputError(f"Expected {what} in {shown(where)}, got files that cannot be read so ({reason(error)}).") from None
