"""What differs between checkpoints by their headers: names, shapes, dtypes, the ranks and targets of adapters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, TensorInfo
from dcmerge.vectors.compatibility.report import Finding, Kind, Parameter, classify
from dcmerge.vectors.towers import tower_of

OUTSIDE_TOWER = "not in the experts, kept from the base"
#: So many names stand in a finding's text where the rest is told by their number; ``parameters`` has all.
_NAMED = 8


def compared(base: Checkpoint | None, experts: Mapping[str, Checkpoint]) -> tuple[tuple[Parameter, ...], list[Finding]]:
    """Every parameter of the set, and all that its headers tell of it."""
    adapters = {task: expert for task, expert in experts.items() if isinstance(expert, LoraCheckpoint)}
    lora = len(adapters) == len(experts)
    if lora:
        wanted, called = _of_any(experts), "another adapter"
    else:
        assert base is not None  # opening refuses full models without a base
        wanted, called = base.infos, "the base"
    parameters = tuple(classify(name, info) for name, info in wanted.items())
    parameters, findings = (parameters, []) if lora else _without_rest_of_base(parameters, experts)
    merged = {p.name for p in parameters if p.mergeable}
    findings = [*_compare_headers(wanted, called, experts, merged), *_notes(base, experts), *findings]
    if lora:
        findings += [*_other_targets(wanted, experts), *_other_ranks(wanted, adapters)]
    if lora and base:
        findings += _adapted_weights_in_base(base, parameters)
    if not merged:
        findings.append(Finding("error", "nothing", f"{called} has no floating-point parameter: there is nothing to merge"))
    skipped = tuple(p.name for p in parameters if not p.mergeable and p.reason != OUTSIDE_TOWER)
    if skipped:
        text = f"{len(skipped)} buffers are not merged but kept from the base: {', '.join(skipped)}"
        findings.append(Finding("note", "buffer", text, parameters=skipped))
    return parameters, findings


def _without_rest_of_base(
    parameters: tuple[Parameter, ...], experts: Mapping[str, Checkpoint]
) -> tuple[tuple[Parameter, ...], list[Finding]]:
    """Where the experts are one tower of a wider base: the rest of it is skipped, and a note says so."""
    names = [p.name for p in parameters if p.mergeable]
    tower = tower_of(names, [expert.infos for expert in experts.values()])
    if tower is None:
        return parameters, []
    outside = set(tower.outside)
    text = (
        f"the experts hold {tower.title} alone, {len(names) - len(outside)} of the base's {len(names)} parameters: the other "
        f"{len(outside)} stay as in the base"
    )
    kept = tuple(replace(p, kind=Kind.SKIPPED, reason=OUTSIDE_TOWER) if p.name in outside else p for p in parameters)
    return kept, [Finding("note", "tower", text, None, tower.outside)]


def _of_any(adapters: Mapping[str, Checkpoint]) -> dict[str, TensorInfo]:
    """The union of the adapted weights: one that an adapter lacks counts as unchanged there."""
    found: dict[str, TensorInfo] = {}
    for adapter in adapters.values():
        found |= {name: info for name, info in adapter.infos.items() if name not in found}
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _other_targets(wanted: Mapping[str, TensorInfo], adapters: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    for task, adapter in adapters.items():
        if lacking := tuple(name for name in wanted if name not in adapter.infos):
            yield Finding(
                "note",
                "other targets",
                f"{task} does not adapt {len(lacking)} of the {len(wanted)} weights that are merged, so it counts as unchanged "
                f"there: {_listed(lacking)}",
                task,
                lacking,
            )


def _other_ranks(wanted: Mapping[str, TensorInfo], adapters: Mapping[str, LoraCheckpoint]) -> Iterator[Finding]:
    """One note where adapters give the same weight different ranks."""
    ranks = {task: {name: adapter.rank_of(name) for name in adapter.infos} for task, adapter in adapters.items()}
    differ = tuple(name for name in wanted if len({own[name] for own in ranks.values() if name in own}) > 1)
    if differ:
        spans = {task: sorted({min(own.values()), max(own.values())}) for task, own in ranks.items()}
        told = ", ".join(f"{task} {' to '.join(map(str, span))}" for task, span in spans.items())
        yield Finding(
            "note",
            "other ranks",
            f"the adapters differ in rank at {len(differ)} weights ({told}); where a method needs one rank it is the largest at "
            "that weight, the others filled up with zeros",
            None,
            differ,
        )


def _compare_headers(
    wanted: Mapping[str, TensorInfo], called: str, experts: Mapping[str, Checkpoint], merged: set[str]
) -> Iterator[Finding]:
    """Names, shapes and dtypes of what is there; those of what is merged alone, the rest stays the base's."""
    for task, expert in experts.items():
        got, lora = expert.infos, isinstance(expert, LoraCheckpoint)
        missing = tuple(name for name in wanted if name in merged and name not in got)
        extra = tuple(name for name in got if name not in wanted)
        common = [name for name in got if name in merged]
        shapes = [name for name in common if got[name].shape != wanted[name].shape]
        dtypes = tuple(name for name in common if got[name].dtype != wanted[name].dtype)
        if missing and not lora:
            yield Finding("error", "missing", f"{task} lacks {len(missing)} parameters: {', '.join(missing)}", task, missing)
        if shapes:
            told = ", ".join(f"{n} (expected {list(wanted[n].shape)}, got {list(got[n].shape)})" for n in shapes)
            yield Finding(
                "error", "other shape", f"{task} has {len(shapes)} parameters of another shape: {told}", task, tuple(shapes)
            )
        if extra:
            yield Finding(
                "warning",
                "extra",
                f"{task} has {len(extra)} parameters that {called} lacks, which are left out: " + ", ".join(extra),
                task,
                extra,
            )
        if dtypes:
            told = f"{dtypes[0]} is {got[dtypes[0]].dtype} here and {wanted[dtypes[0]].dtype} in {called}".replace("torch.", "")
            yield Finding(
                "warning",
                "other dtype",
                f"{task} has {len(dtypes)} parameters of another dtype ({told}); deltas are taken in float32",
                task,
                dtypes,
            )


def _notes(base: Checkpoint | None, experts: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    """What the files hold beside parameters, and how it was read."""
    for who, checkpoint in ({"base": base, **experts} if base else experts).items():
        for note in checkpoint.notes:
            yield Finding("note", "file", f"{who}: {note}", None if who == "base" else who)


def _adapted_weights_in_base(base: Checkpoint, adapted: tuple[Parameter, ...]) -> Iterator[Finding]:
    lost = tuple(p.name for p in adapted if p.name not in base.infos)
    if lost:
        yield Finding("error", "missing", f"the base lacks {len(lost)} adapted weights: {', '.join(lost)}", None, lost)
    other = [p for p in adapted if p.name in base.infos and base.infos[p.name].shape != p.shape]
    if other:
        told = ", ".join(f"{p.name} (base {list(base.infos[p.name].shape)}, adapters {list(p.shape)})" for p in other)
        yield Finding(
            "error",
            "other shape",
            f"{len(other)} adapted weights have another shape in the base: {told}",
            None,
            tuple(p.name for p in other),
        )
