"""``dcmerge inspect``: what lies in a folder, does this set fit together, and what is in it?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dcmerge.checkpoints import Checkpoint
from dcmerge.checkpoints.regrouped import qkv_of
from dcmerge.cli.fitting import fit_of
from dcmerge.cli.folders import chosen, folder_and_set, on_disk, search_as_data, search_as_text
from dcmerge.cli.options import Commands, Parser, add_command, add_model_set, named_models, named_zoo
from dcmerge.cli.output import Progress, paragraph, print_json, qkv_lines, seconds, size, table
from dcmerge.cli.verdict import add_verdict, check_verdict, verdict_code, verdict_lines, write_verdict
from dcmerge.errors import InputError
from dcmerge.merging.prediction import Cost, predicted_costs
from dcmerge.sets.layouts import FoundSet, Search, peek, search
from dcmerge.studies.verdict import Verdict, verdict
from dcmerge.studies.verdict.tables import to_data
from dcmerge.vectors.compatibility import Kind, Parameter, Report, examine
from dcmerge.vectors.task_vectors import TaskVectors, open_set

#: So many parameters with one reason stand one by one.
_LISTED = 6


@dataclass(frozen=True)
class Inspected:
    """A set, opened and examined, whether it can be merged or not."""

    base: Checkpoint | None
    experts: dict[str, Checkpoint]
    report: Report
    costs: dict[str, Cost]
    vectors: TaskVectors | None = None
    verdict: Verdict | None = None

    @property
    def qkv(self) -> tuple[str, str]:
        """How attention's q, k and v are merged, and how the files have them."""
        checkpoints = [*([self.base] if self.base else []), *self.experts.values()]
        return qkv_of(checkpoints, [p.name for p in self.report.parameters if p.mergeable])

    @property
    def mergeable(self) -> bool:
        return not self.report.errors

    def relative_norm(self, task: str) -> float | None:
        """‖τ‖/‖θ0‖ over the mergeable parameters; None for adapters and where nothing was read."""
        norm, base = self.report.delta_norms.get(task), self.report.base_norm
        return norm / base if norm is not None and base else None

    def to_dict(self) -> dict[str, Any]:
        relative = {task: self.relative_norm(task) for task in self.experts}
        opened = {
            "base": _checkpoint(self.base) if self.base else None,
            "experts": {task: _checkpoint(expert) for task, expert in self.experts.items()},
        }
        peak = self.costs["DC-Merge"].peak_bytes if self.costs else None
        facts = {"relative_norms": relative, "predicted": self.costs, "predicted_peak_bytes": peak}
        qkv, stored = self.qkv
        facts |= {"qkv": qkv, "qkv_stored": stored}
        facts |= {"verdict": to_data(self.verdict)} if self.verdict else {}
        return {"mergeable": self.mergeable, **opened, **self.report.to_dict(), **facts}


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "inspect", run, example="checkpoints/animals")
    parser.add_argument(
        "place", nargs="?", metavar="FOLDER", help="where the models lie, in any layout, or hub:owner/name; as --from"
    )
    add_model_set(parser)
    add_verdict(parser)


def run(args: argparse.Namespace) -> int:
    if args.place and args.folder:
        raise InputError("expected one folder, got FOLDER and --from")
    args.folder = args.place or args.folder
    return _run_folder(args) if args.folder and not (args.zoo or args.expert) else _run_named(args)


def _run_named(args: argparse.Namespace) -> int:
    check_verdict(args)
    with Progress() as progress:
        found = _judged(_inspect(args, progress), args, progress)
    print_json(found.to_dict()) if args.json else print(as_text(found))
    return _told(found)


def _judged(found: Inspected, args: argparse.Namespace, progress: Progress) -> Inspected:
    """With the verdict on its pairs, where that was asked for and the set can be merged."""
    if not args.verdict or found.vectors is None:
        return found
    judged = replace(found, verdict=verdict(found.vectors, args.by, progress=progress))
    write_verdict(args, judged.verdict)
    return judged


def _told(found: Inspected) -> int:
    """The exit code, of a set that can be merged."""
    if not found.mergeable:
        count = len(found.report.errors)
        raise InputError(f"these checkpoints cannot be merged, for {count} reason{'s' * (count > 1)} in the report")
    return verdict_code(found.verdict)


def _run_folder(args: argparse.Namespace) -> int:
    """Everything in a folder; of a single set, or the one that ``--base`` chooses, the report on its values too."""
    check_verdict(args)
    place, what = folder_and_set(args.folder)
    place, args.base = on_disk(place, args.download, whole=True), args.base and on_disk(args.base, args.download)
    found = search(place)
    one = chosen(found, what, args.base) if len(found.sets) == 1 or (found.sets and (what or args.base)) else None
    found = found if one is None else replace(found, sets=(one,))
    inspected = None
    unread = _unreadable(one) if one is not None and not one.lacks else {}
    if one is not None and not one.lacks and len(unread) < len(one.experts):
        readable = {task: path for task, path in one.experts.items() if task not in unread}
        with Progress() as progress:
            inspected = _judged(_examined(one.base, readable, args, progress), args, progress)
    if args.json:
        print_json(search_as_data(found) | {"report": inspected.to_dict() if inspected else None})
    else:
        print(search_as_text(found))
        print(f"\n{as_text(inspected)}" if inspected else _why_no_report(found))
    if not found.sets:
        chosen(found, what, args.base)
    if one is not None:
        one.checked()
    if unread:
        rest = "the report is of the others" if inspected else "there is no report"
        raise InputError(f"{len(unread)} of the experts cannot be opened ({', '.join(unread)}), and {rest}")
    if args.verdict and inspected is None:
        raise InputError(f"verdict: expected one set, got {len(found.sets)} in this folder; name it as FOLDER#NAME")
    return _told(inspected) if inspected else 0


def _unreadable(one: FoundSet) -> dict[str, str]:
    """Experts that cannot be opened, by task: each is a row of the listing, and the others are reported on all the same."""
    errors = {task: peek(path) for task, path in one.experts.items()}
    return {task: found.error for task, found in errors.items() if found.error}


def _why_no_report(found: Search) -> str:
    many = "\nThe report on values is made of one set: name it."
    return many if len(found.sets) > 1 else ""


def _inspect(args: argparse.Namespace, progress: Progress) -> Inspected:
    base, experts = named_models(args, progress)
    if args.zoo:
        fit_of(args)  # options that contradict each other are refused here too
        vectors = named_zoo(args.zoo, progress, args.qkv).vectors
        return _with_costs(vectors.base, vectors.experts, vectors.report, vectors)
    return _examined(base, experts, args, progress)


def _examined(
    base: str | Path | None, experts: Mapping[str, str | Path], args: argparse.Namespace, progress: Progress
) -> Inspected:
    fit = fit_of(args)
    opened_base, opened = open_set(base, experts, args.qkv, fit)
    report = examine(opened_base, opened, fit, progress=progress)
    known = {p.name: p for p in report.parameters if p.mergeable}
    vectors = None if report.errors else TaskVectors(opened_base, opened, known, report, fit=fit)
    return _with_costs(opened_base, opened, report, vectors)


def _with_costs(
    base: Checkpoint | None, experts: dict[str, Checkpoint], report: Report, vectors: TaskVectors | None
) -> Inspected:
    costs = {} if report.errors else predicted_costs(base, experts, report.parameters)
    return Inspected(base, experts, report, costs, vectors)


def _checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    tensors = len(checkpoint.infos)
    return {"path": str(checkpoint.path), "kind": checkpoint.kind, "tensors": tensors, "notes": list(checkpoint.notes)}


def as_text(found: Inspected) -> str:
    """The whole report for people."""
    report = found.report
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts().items())
    findings = [f"{f.level}: {f.text}" for f in report.findings]
    parts = [
        _files(found),
        f"Parameters: {counts}",
        *qkv_lines(*found.qkv),
        *_parameters("Not merged", [p for p in report.parameters if p.kind is Kind.SKIPPED]),
        *_parameters("Treated specially", [p for p in report.parameters if p.reason and p.kind is not Kind.SKIPPED]),
        "Findings" if findings else "Findings: none",
        *(paragraph(finding, indent=2) for finding in findings),
        f"Can be merged: {'yes' if found.mergeable else 'no'}",
        *([_cost_lines(found.costs)] if found.costs else []),
        *(verdict_lines(found.verdict) if found.verdict else []),
    ]
    return "\n".join(parts)


def _cost_lines(costs: dict[str, Cost]) -> str:
    """Time and memory of a merge into a file, as far as they can be told before."""
    told = []
    for title, cost in costs.items():
        mapped = f" ({size(cost.mapped_bytes)} of it pages of the files)" if cost.mapped_bytes else ""
        told.append(f"  {title}: about {seconds(cost.seconds)} s, {size(cost.peak_bytes)} of memory at most{mapped}")
    return "\n".join(["Merging into a file, predicted (nothing cached, this machine as it is now)", *told])


def _parameters(title: str, parameters: list[Parameter]) -> list[str]:
    """Parameters with the reason for their treatment, many of one reason as one row; nothing where there are none."""
    by_reason: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        by_reason.setdefault(parameter.reason, []).append(parameter)
    rows: list[tuple[str, object, str]] = []
    for reason, own in by_reason.items():
        if len(own) <= _LISTED:
            rows += [(p.name, list(p.shape), reason) for p in own]
        else:
            rows.append((f"{len(own)} parameters: {own[0].name}, …", None, reason))
    return [title, table(["parameter", "shape", "reason"], rows, left=(0, 1, 2), indent=2)] if rows else []


def _files(found: Inspected) -> str:
    """One row a file, with the length of its task vector."""
    rows: list[list[object]] = []
    if found.base:
        norm = found.report.base_norm
        rows.append(["(base)", found.base.kind, len(found.base.infos), _figure(norm), None, found.base.path])
    for task, expert in found.experts.items():
        relative = found.relative_norm(task)
        share = None if relative is None else f"{100 * relative:.1f} %"
        norm = _figure(found.report.delta_norms.get(task))
        rows.append([task, expert.kind, len(expert.infos), norm, share, expert.path])
    return table(["task", "kind", "tensors", "‖τ‖ (‖θ0‖)", "‖τ‖/‖θ0‖", "path"], rows, left=(0, 1, 5))


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
