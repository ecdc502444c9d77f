"""A set whose models have names on the Hugging Face hub: what a person typed, and what of it is on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dcmerge.checkpoints import ADAPTER_CONFIG
from dcmerge.checkpoints.hub import HubName, Plan, cached, fetched, planned_fetch
from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.sets.layouts import FoundSet

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class HubSet:
    """Names on the hub: of a base, which adapters do without, and of an expert for each task."""

    base: HubName | None
    experts: Mapping[str, HubName]

    @classmethod
    def of(cls, base: str, experts: str) -> HubSet:
        """From two fields: a name or nothing, and a line for each expert, ``owner/name`` or ``task = owner/name``.

        Raises InputError for a line that is none, no line at all, and a task that comes twice.
        """
        named: dict[str, HubName] = {}
        for line in filter(None, map(str.strip, experts.splitlines())):
            task, equals, text = line.rpartition("=")
            name = HubName.of(text)
            own = task.strip() if equals else (name.inside or name.repository).rpartition("/")[2]
            if own in named or (equals and not own):
                raise InputError(f"expected a task of its own for every expert, got {shown(own)!r} twice or without a name")
            named[own] = name
        if not named:
            raise InputError("expected at least one expert, got none")
        return cls(HubName.of(base) if base.strip() else None, named)

    @property
    def names(self) -> tuple[HubName, ...]:
        """The base first, each once."""
        return tuple(dict.fromkeys([*([self.base] if self.base else []), *self.experts.values()]))

    def missing(self) -> tuple[HubName, ...]:
        """What is not on this machine in full; asks nothing of the net."""
        return tuple(name for name in self.names if cached(name) is None)

    def plans(self) -> tuple[Plan, ...]:
        """What must be fetched; asks the hub, see ``planned_fetch``."""
        return tuple(planned_fetch(name) for name in self.missing())

    def found(self) -> FoundSet:
        """The set on disk; raises InputError where a model of it is not there."""
        experts = {task: _path(name) for task, name in self.experts.items()}
        lora = all((path / ADAPTER_CONFIG).is_file() for path in experts.values())
        base = self.base and _path(self.base)
        title = "Models of the Hugging Face hub"
        return FoundSet("peft" if lora else "hub", title, base or next(iter(experts.values())), base, experts)


def fetch_all(plans: tuple[Plan, ...], progress: Progress | None = None) -> None:
    """Fetch every plan; the shares that ``progress`` hears are those of all bytes together."""
    whole, done = sum(plan.nbytes for plan in plans) or 1, 0
    for plan in plans:
        start, own = done / whole, plan.nbytes / whole
        fetched(plan, None if progress is None else lambda share, text, s=start, o=own: progress(s + o * share, text))
        done += plan.nbytes


def _path(name: HubName) -> Path:
    there = cached(name)
    if there is None:
        raise InputError(f"{name.text} is not on this machine", "download")
    return there[0]
