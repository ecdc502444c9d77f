"""What a base and its experts have in common, and the rule by which the rest is left out, told in groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dcmerge.checkpoints import Checkpoint
from dcmerge.errors import listed
from dcmerge.vectors.compatibility.report import Finding, Kind, Parameter, classify
from dcmerge.vectors.fit import Fit
from dcmerge.vectors.roles import OTHER, Role, role_of, size_of

#: An expert that shares a smaller part of the base's numbers is no expert of this base.
_LEAST = 0.5


@dataclass(frozen=True)
class Lacking:
    """Parameters of one role that are not merged, and why: ``missing`` in these tasks, or of ``other`` shape in those."""

    role: Role
    names: tuple[str, ...]
    missing: tuple[str, ...]
    other: tuple[str, ...]


def without_copies(
    parameters: tuple[Parameter, ...], copies: Mapping[str, str], experts: Mapping[str, Checkpoint]
) -> tuple[tuple[Parameter, ...], list[Finding]]:
    """Tied tensors are merged once, under the name of the original."""
    names = {p.name for p in parameters}
    kept = tuple(
        replace(p, kind=Kind.SKIPPED, reason=f"a copy of {copies[p.name]}, and written as one") if p.name in copies else p
        for p in parameters
    )
    named = {
        name: [*(["the base"] if name in names else []), *(t for t, e in experts.items() if name in e.infos)] for name in copies
    }
    findings = [
        Finding(
            "note",
            "tied",
            f"{name} is a copy of {copies[name]} (named by {', '.join(who)}): both are merged as one",
            None,
            (name,),
        )
        for name, who in named.items()
    ]
    return kept, findings


def in_common(
    parameters: tuple[Parameter, ...], base: Checkpoint, experts: Mapping[str, Checkpoint]
) -> tuple[tuple[Parameter, ...], list[Finding]]:
    """Without what an expert lacks or has in another shape; an error for an expert that has too little of the base."""
    merged = [p for p in parameters if p.mergeable]
    if errors := [*_strangers(merged, experts)]:
        return parameters, errors
    groups = _grouped(merged, experts)
    out = {name: group for group in groups for name in group.names}
    kept = tuple(
        replace(p, kind=Kind.SKIPPED, reason=f"{out[p.name].role.title} that not all have, kept from the base")
        if p.name in out
        else p
        for p in parameters
    )
    return kept, [told_group(group, base, experts) for group in groups]


def by_choice(parameters: tuple[Parameter, ...], fit: Fit) -> tuple[tuple[Parameter, ...], list[Finding]]:
    """Without what a person excluded. Raises InputError for a pattern that nothing matches."""
    fit.check_patterns([p.name for p in parameters])
    why = {p.name: reason for p in parameters if p.mergeable and (reason := fit.excludes(p.name))}
    kept = tuple(replace(p, kind=Kind.SKIPPED, reason=why[p.name]) if p.name in why else p for p in parameters)
    reasons = list(dict.fromkeys(why.values()))
    return kept, [_chosen([name for name, own in why.items() if own == reason], reason) for reason in reasons]


def _chosen(names: Sequence[str], reason: str) -> Finding:
    return Finding("note", "left out", f"{len(names)} parameters: {reason} ({listed(names)})", None, tuple(names))


def extras(base_names: Mapping[str, object], experts: Mapping[str, Checkpoint], copies: Mapping[str, str]) -> Iterator[Finding]:
    """What experts hold and the base does not, by role; buffers and copies are told elsewhere."""
    found: dict[Role, dict[str, list[str]]] = {}
    for task, expert in experts.items():
        for name, info in expert.infos.items():
            if name not in base_names and name not in copies and classify(name, info).mergeable:
                found.setdefault(role_of(name), {}).setdefault(name, []).append(task)
    for role, names in found.items():
        tasks = [task for task in experts if any(task in own for own in names.values())]
        text = (
            f"{_sizes(role, tuple(names), {t: experts[t] for t in tasks})}only in {', '.join(tasks)}, left out ({listed(names)})"
        )
        level = "warning" if role is OTHER else "note"
        yield Finding(level, "extra", f"{role.title}: {text}", tasks[0] if len(tasks) == 1 else None, tuple(names))


def _strangers(merged: Sequence[Parameter], experts: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    whole = sum(p.numel for p in merged)
    for task, expert in experts.items():
        missing = [p.name for p in merged if p.name not in expert.infos]
        other = [p for p in merged if p.name in expert.infos and expert.infos[p.name].shape != p.shape]
        share = sum(p.numel for p in merged if p.name in expert.infos and expert.infos[p.name].shape == p.shape)
        if not whole or share >= _LEAST * whole:
            continue
        shapes = [f"{p.name} (expected {list(p.shape)}, got {list(expert.infos[p.name].shape)})" for p in other]
        told = [f"lacks {len(missing)} parameters ({listed(missing)})"] if missing else []
        told += [f"has {len(other)} of another shape ({listed(shapes)})"] if other else []
        text = f"{task} has {_percent(share / whole)} % of the base's numbers, fewer than half, so it is no expert of this base: "
        yield Finding("error", "stranger", f"{text}it {' and '.join(told)}", task, (*missing, *(p.name for p in other)))


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share else "0"


def _grouped(merged: Sequence[Parameter], experts: Mapping[str, Checkpoint]) -> list[Lacking]:
    groups: dict[tuple[Role, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for p in merged:
        missing = tuple(task for task, expert in experts.items() if p.name not in expert.infos)
        other = tuple(t for t, expert in experts.items() if t not in missing and expert.infos[p.name].shape != p.shape)
        if missing or other:
            groups.setdefault((role_of(p.name), missing, other), []).append(p.name)
    return [Lacking(role, tuple(names), missing, other) for (role, missing, other), names in groups.items()]


def told_group(group: Lacking, base: Checkpoint, experts: Mapping[str, Checkpoint]) -> Finding:
    """ "classification heads: 2, 2 and 3 classes (base, sst2, mnli), left out, as in the base (classifier.weight, ...)"."""
    holders = {"base": base, **{task: expert for task, expert in experts.items() if task not in group.missing}}
    parts = [_sizes(group.role, group.names, holders).rstrip(", ")] if group.other else []
    parts += [f"missing in {', '.join(group.missing)}"] if group.missing else []
    text = f"{', '.join(filter(None, parts))}, left out: they stay as in the base ({listed(group.names)})"
    level = "warning" if group.role is OTHER else "note"
    task = [*group.missing, *group.other]
    return Finding(level, "left out", f"{group.role.title}: {text}", task[0] if len(task) == 1 else None, group.names)


def _sizes(role: Role, names: Sequence[str], holders: Mapping[str, Checkpoint]) -> str:
    """ "2, 3 and 3 classes (base, sst2, mnli), "; of parameters without a role, their shapes."""
    if role is OTHER:
        holders = {who: one for who, one in holders.items() if any(n in one.infos for n in names[:2])}
        shapes = {
            who: " and ".join(str(list(one.infos[n].shape)) for n in names[:2] if n in one.infos) for who, one in holders.items()
        }
        return f"{', '.join(f'{shape} in {who}' for who, shape in shapes.items())}, "
    if not role.unit:
        return ""
    sizes = {who: size_of(role, [one.infos[n].shape for n in names if n in one.infos]) for who, one in holders.items()}
    numbers = [str(size) for size in sizes.values() if size is not None]
    if not numbers:
        return ""
    counted = numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}"
    return f"{counted} {role.unit} ({', '.join(who for who, size in sizes.items() if size is not None)}), "
