"""What differs between checkpoints by their headers: names, shapes, dtypes, the ranks and targets of adapters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, TensorInfo
from dcmerge.errors import listed
from dcmerge.vectors.adapters import as_matrix
from dcmerge.vectors.compatibility.adapters import in_full, lacking_parts, other_base
from dcmerge.vectors.compatibility.common import by_choice, extras, in_common, without_copies
from dcmerge.vectors.compatibility.report import Finding, Kind, Parameter, classify
from dcmerge.vectors.fit import Fit
from dcmerge.vectors.ties import tied
from dcmerge.vectors.towers import tower_of

OUTSIDE_TOWER = "not in the experts, kept from the base"


def compared(
    base: Checkpoint | None, experts: Mapping[str, Checkpoint], fit: Fit
) -> tuple[tuple[Parameter, ...], list[Finding], dict[str, str]]:
    """Every parameter of the set, all that its headers tell of it, and which tensors are copies of others."""
    adapters = {task: expert for task, expert in experts.items() if isinstance(expert, LoraCheckpoint)}
    if len(adapters) == len(experts):
        found = _of_adapters(base, adapters, fit)
    else:
        assert base is not None  # opening refuses full models without a base
        found = _of_models(base, experts, fit)
    parameters, findings, copies = found
    findings = [*_told_first(base, experts), *findings]
    refused = any(finding.level == "error" for finding in findings)
    if not refused and not any(p.mergeable for p in parameters):
        findings.append(Finding("error", "nothing", "nothing is left to merge: no floating-point parameter is common to all"))
    buffers = tuple(p.name for p in parameters if not p.mergeable and "buffer" in p.reason)
    if buffers:
        kinds = Counter(".".join(name.split(".")[-2:]) if _is_common_end(name) else name.split(".")[-1] for name in buffers)
        told = ", ".join(f"{kind} ({count})" if count > 1 else kind for kind, count in kinds.items())
        text = f"{len(buffers)} buffers are not merged but kept from the base: {told}"
        findings.append(Finding("note", "buffer", text, parameters=buffers))
    return parameters, findings, copies


def _of_models(
    base: Checkpoint, experts: Mapping[str, Checkpoint], fit: Fit
) -> tuple[tuple[Parameter, ...], list[Finding], dict[str, str]]:
    """What full models have in common with their base; what not all have is left out by a rule."""
    parameters = tuple(classify(name, info) for name, info in base.infos.items())
    copies = tied(base, experts)
    parameters, findings = without_copies(parameters, copies, experts)
    for step in (_without_rest_of_base, lambda p, e: in_common(p, base, e), lambda p, e: by_choice(p, fit)):
        parameters, more = step(parameters, experts)
        findings += more
    merged = {p.name for p in parameters if p.mergeable}
    findings += [*extras(base.infos, experts, copies), *_other_dtypes(base.infos, "the base", experts, merged)]
    return parameters, [*findings, *_notes(base, experts)], copies


def _of_adapters(
    base: Checkpoint | None, adapters: Mapping[str, LoraCheckpoint], fit: Fit
) -> tuple[tuple[Parameter, ...], list[Finding], dict[str, str]]:
    """The union of what adapters adapt, and whether the base has it."""
    wanted = _of_any(adapters)
    parameters, findings = in_full(tuple(classify(name, info) for name, info in wanted.items()), base, adapters)
    parameters, more = by_choice(parameters, fit)
    findings += [*more, *lacking_parts(parameters, base, adapters), *other_base(base, adapters)]
    lost = {name for finding in findings if finding.what == "part" for name in finding.parameters}
    parameters = tuple(
        replace(p, kind=Kind.SKIPPED, reason="of a part that the base lacks") if p.name in lost else p for p in parameters
    )
    merged = {p.name for p in parameters if p.mergeable}
    findings += [*_other_shapes(wanted, "another adapter", adapters, merged), *_notes(base, adapters)]
    findings += [*_other_dtypes(wanted, "another adapter", adapters, merged)]
    findings += [*_other_targets(wanted, adapters), *_other_ranks(wanted, adapters)]
    copies = tied(base, adapters) if base else {}
    if base:
        findings += [*_adapted_weights_in_base(base, parameters, copies, adapters), *_adapted_copies(merged, copies)]
    return parameters, findings, copies


def _is_common_end(name: str) -> bool:
    """Whether the last part alone would not say what a buffer is."""
    return name.split(".")[-1] in ("bias", "weights", "freqs")


def _told_first(base: Checkpoint | None, experts: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    """What must not be overlooked: vocabularies that differ."""
    for who, checkpoint in ({"base": base, **experts} if base else experts).items():
        for text in checkpoint.told:
            yield Finding("warning", "vocabulary", f"{who}: {text}", None if who == "base" else who)


def _adapted_copies(merged: set[str], copies: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted(merged & copies.keys()):
        text = f"{name} is tied to {copies[name]} in this base, so its delta is added to the one weight that both share"
        yield Finding("note", "tied", text, None, (name,))


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


def _other_targets(wanted: Mapping[str, TensorInfo], adapters: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    for task, adapter in adapters.items():
        if lacking := tuple(name for name in wanted if name not in adapter.infos):
            yield Finding(
                "note",
                "other targets",
                f"{task} does not adapt {len(lacking)} of the {len(wanted)} weights that are merged, so it counts as unchanged "
                f"there: {listed(lacking)}",
                task,
                lacking,
            )


def _other_ranks(wanted: Mapping[str, TensorInfo], adapters: Mapping[str, LoraCheckpoint]) -> Iterator[Finding]:
    """One note where adapters give the same weight different ranks."""
    ranks = {task: {name: adapter.rank_of(name) for name in adapter.adapted} for task, adapter in adapters.items()}
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


def _other_shapes(
    wanted: Mapping[str, TensorInfo], called: str, adapters: Mapping[str, Checkpoint], merged: set[str]
) -> Iterator[Finding]:
    """Adapters of one weight whose products have other shapes."""
    for task, adapter in adapters.items():
        shapes = [name for name, info in adapter.infos.items() if name in merged and info.shape != wanted[name].shape]
        if shapes:
            told = [f"{n} (expected {list(wanted[n].shape)}, got {list(adapter.infos[n].shape)})" for n in shapes]
            text = f"{task} has {len(shapes)} parameters of another shape than {called}: {listed(told)}"
            yield Finding("error", "other shape", text, task, tuple(shapes))


def _other_dtypes(
    wanted: Mapping[str, TensorInfo], called: str, experts: Mapping[str, Checkpoint], merged: set[str]
) -> Iterator[Finding]:
    for task, expert in experts.items():
        got = expert.infos
        dtypes = tuple(name for name in got if name in merged and got[name].dtype != wanted[name].dtype)
        # A delta is real: what is imaginary would be lost without a word.
        if complex_ones := tuple(name for name in dtypes if got[name].dtype.is_complex):
            text = f"{task} has {len(complex_ones)} parameters of complex numbers, expected real ones: {listed(complex_ones)}"
            yield Finding("error", "complex", text, task, complex_ones)
        if dtypes:
            told = f"{dtypes[0]} is {got[dtypes[0]].dtype} here and {wanted[dtypes[0]].dtype} in {called}".replace("torch.", "")
            text = f"{task} has {len(dtypes)} parameters of another dtype ({told}); deltas are taken in float32"
            yield Finding("warning", "other dtype", text, task, dtypes)


def _notes(base: Checkpoint | None, experts: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    """What the files hold beside parameters, and how it was read."""
    for who, checkpoint in ({"base": base, **experts} if base else experts).items():
        for note in checkpoint.notes:
            yield Finding("note", "file", f"{who}: {note}", None if who == "base" else who)


def _adapted_weights_in_base(
    base: Checkpoint, adapted: tuple[Parameter, ...], copies: Mapping[str, str], adapters: Mapping[str, Checkpoint]
) -> Iterator[Finding]:
    places = {p.name: copies.get(p.name, p.name) for p in adapted}
    lost = tuple(p.name for p in adapted if p.mergeable and places[p.name] not in base.infos)
    rivals = {task: adapter.rivals for task, adapter in adapters.items() if adapter.rivals}
    for task, prefixes in rivals.items() if lost else ():
        text = (
            f"the weights that {task} adapts fit {' and '.join(prefixes)} of the base equally well, and its settings do not say "
        )
        yield Finding("error", "two towers", f"{text}which of them it was trained on (auto_mapping)", task, lost)
    if lost and not rivals:
        yield Finding("error", "missing", f"the base lacks {len(lost)} adapted weights: {listed(lost)}", None, lost)
    there = [p for p in adapted if p.mergeable and places[p.name] in base.infos]
    other = [p for p in there if as_matrix(base.infos[places[p.name]].shape) != as_matrix(p.shape)]
    if other:
        told = [f"{p.name} (base {list(base.infos[places[p.name]].shape)}, adapters {list(p.shape)})" for p in other]
        text = f"{len(other)} adapted weights have another shape in the base: {listed(told)}"
        yield Finding("error", "other shape", text, None, tuple(p.name for p in other))
