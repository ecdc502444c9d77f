"""``dcmerge inspect``: does this set fit together, and what is in it?"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from dcmerge.checkpoints import Checkpoint
from dcmerge.cli.options import Commands, Parser, add_command, add_model_set, expert_paths, named_zoo
from dcmerge.cli.output import Progress, paragraph, print_json, size, table
from dcmerge.compatibility import Kind, Parameter, Report, examine
from dcmerge.errors import InputError
from dcmerge.task_vectors import open_set, predicted_peak_bytes


@dataclass(frozen=True)
class Inspected:
    """A set, opened and examined, whether it can be merged or not."""

    base: Checkpoint | None
    experts: dict[str, Checkpoint]
    report: Report

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
        facts = {"relative_norms": relative, "predicted_peak_bytes": self.predicted_peak}
        return {"mergeable": self.mergeable, **opened, **self.report.to_dict(), **facts}

    @property
    def predicted_peak(self) -> int:
        """About the most memory that merging this set into a file takes, in bytes."""
        return predicted_peak_bytes([p for p in self.report.parameters if p.mergeable], len(self.experts))


def add_to(commands: Commands, common: Parser) -> None:
    add_model_set(add_command(commands, common, "inspect", "report whether a base and its experts fit together", run))


def run(args: argparse.Namespace) -> int:
    with Progress() as progress:
        found = _inspect(args, progress)
    if args.json:
        print_json(found.to_dict())
    else:
        print(as_text(found))
    if not found.mergeable:
        count = len(found.report.errors)
        raise InputError(f"these checkpoints cannot be merged, for {count} reason{'s' * (count > 1)} in the report")
    return 0


def _inspect(args: argparse.Namespace, progress: Progress) -> Inspected:
    paths = expert_paths(args)
    if args.zoo:
        vectors = named_zoo(args.zoo, progress).vectors
        return Inspected(vectors.base, vectors.experts, vectors.report)
    base, experts = open_set(args.base, paths)
    return Inspected(base, experts, examine(base, experts, progress=progress))


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
        *_parameters("Skipped", [p for p in report.parameters if p.kind is Kind.SKIPPED]),
        *_parameters("Treated specially", [p for p in report.parameters if p.reason and p.kind is not Kind.SKIPPED]),
        "Findings" if findings else "Findings: none",
        *(paragraph(finding, indent=2) for finding in findings),
        f"Can be merged: {'yes' if found.mergeable else 'no'}",
        *([f"Merging into a file takes about {size(found.predicted_peak)} of memory at most"] if found.mergeable else []),
    ]
    return "\n".join(parts)


def _parameters(title: str, parameters: list[Parameter]) -> list[str]:
    """Parameters with the reason for their treatment; nothing where there are none."""
    rows = [(p.name, list(p.shape), p.reason) for p in parameters]
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
