"""Full models beside each other, one of them the base: what the open_clip, language-model and plain layouts share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dcmerge.checkpoints.paths import shown
from dcmerge.sets.layouts.found import FoundSet, Skipped
from dcmerge.sets.layouts.peek import Shape
from dcmerge.sets.layouts.units import Unit
from dcmerge.sets.layouts.view import BASE_NAMES, View, by_task, grouped, pickled, strangers, unreadable

SOURCE = "_name_or_path"


@dataclass(frozen=True)
class Group:
    """The full models of one folder."""

    container: Path
    base: Unit | None
    experts: tuple[Unit, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]

    @property
    def sample(self) -> Unit:
        """A member whose headers can be read, if there is one: the base first."""
        members = self.members
        return next((unit for unit in members if unit.peek.shapes), members[0])

    @property
    def members(self) -> list[Unit]:
        return [*([self.base] if self.base else []), *self.experts]

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return self.sample.peek.shapes

    def found(self, view: View, layout: str, title: str, encoder: str | None = None, notes: tuple[str, ...] = ()) -> FoundSet:
        tasks = by_task((unit.name, unit) for unit in self.experts)
        heads, head_notes = view.heads_for(tasks, self.container, (encoder or "").removesuffix("-quickgelu"))
        every = (*self.notes, *notes, *head_notes, *unreadable(self.members))
        return FoundSet(
            layout,
            title,
            self.container,
            self.base and self.base.path,
            tasks,
            heads,
            encoder,
            self.skipped,
            every,
            pickled(self.members),
            () if self.base else self.notes,
        )


def groups(view: View, wanted: Callable[[Group], bool] = lambda group: True) -> Iterator[Group]:
    """Every folder with full models that go together: a base and its experts, or at least two alike without a base."""
    for container, units in grouped((u for u in view.units if not u.is_adapter), lambda u: u.container).items():
        group = _group(view, container, units)
        if group and wanted(group):
            yield group


def _group(view: View, container: Path, units: list[Unit]) -> Group | None:
    base, notes = _base(view, container, units)
    others = [unit for unit in units if base is None or unit.path != base.path]
    if base is None:
        return _without_base(container, others, notes)
    called = [unit for unit in others if unit.lower in BASE_NAMES]
    kept, skipped = strangers((unit for unit in others if unit not in called), base)
    spare = tuple(Skipped(unit.path, f"has the name of a base, but {shown(base.path.name)} is used") for unit in called)
    return Group(container, base, tuple(kept), (*skipped, *spare), notes) if kept else None


def _base(view: View, container: Path, units: list[Unit]) -> tuple[Unit | None, tuple[str, ...]]:
    """By its name, else by what the others' settings say they were made from."""
    if found := view.base_in(container):
        return found, ()
    named = {unit.path: path for unit in units if (path := view.path_named(unit.config.get(SOURCE), container))}
    targets = {path for unit, path in named.items() if path != unit}
    if len(targets) == 1:
        path = targets.pop()
        base = next((u for u in view.every if u.path == path), Unit(path, path.stem, path.parent))
        told = shown(PurePosixPath(path).name)
        return base, (f"{told} is taken as the base, because {len(named)} of the models say that they were made from it",)
    if targets:
        return None, ("the models say that they were made from different bases: " + ", ".join(sorted(map(shown, targets))),)
    return None, ()


def _without_base(container: Path, units: list[Unit], notes: tuple[str, ...]) -> Group | None:
    """Models of equal names and shapes, the most numerous kind; None where no two are alike."""
    kinds = grouped((u for u in units if u.peek.shapes), lambda u: frozenset(u.peek.shapes.items()))
    alike = max(kinds.values(), key=len, default=[])
    modules = [unit for unit in units if unit.peek.pickled]
    if len(alike) < 2:
        return None
    other = tuple(
        Skipped(unit.path, "has other parameters than the models beside it")
        for unit in units
        if unit not in alike and unit not in modules
    )
    what = f"none of the {len(alike)} models is called {' or '.join(BASE_NAMES)}, so the base must be named"
    return Group(container, None, (*alike, *modules), other, notes or (what,))
