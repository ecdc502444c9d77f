"""``dcmerge runs``: everything that was measured, the same store as on the dashboard's page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dcmerge.checkpoints import check_text_target, write_text
from dcmerge.checkpoints.folders import check_folder, write_bytes
from dcmerge.cli.options import Commands, Parser, add_command, parameters_text, whole_number
from dcmerge.cli.output import paragraph, percent, percent_with_interval, print_json, printable, table
from dcmerge.errors import InputError
from dcmerge.runs import KINDS, Run, RunStore, paired, sharing, tables
from dcmerge.runs.fields import made_at, to_data
from dcmerge.runs.publishing import EXPERIMENT, TRACKERS, publish

_SHOWN = 50


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "runs", run, example="compare 20260131-101500-3fa9c1 20260131-102000-77b0de")
    parser.add_argument("action", nargs="?", choices=tuple(ACTIONS), default="list", help="default: list")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="ID|TEXT|FOLDER",
        help="ids of runs, or their beginnings; name and note take one id and the text; import takes a folder",
    )
    chosen = parser.add_argument_group("which runs (list, export, publish)")
    chosen.add_argument("--kind", choices=KINDS, help="what led to them")
    chosen.add_argument("--of", metavar="SET", help="runs on this set of models: its name, or its hash")
    chosen.add_argument("--method", metavar="SLUG", help="runs of this method")
    chosen.add_argument("--group", metavar="ID", help="runs of this sweep, comparison or job")
    chosen.add_argument("--split", choices=("val", "test"), help="runs on these images")
    chosen.add_argument("--starred", action="store_true", default=None, help="only those with a star")
    chosen.add_argument("--text", metavar="TEXT", help="runs whose name, note, method, set or group contains this")
    chosen.add_argument("--limit", type=whole_number(1), metavar="N", help=f"the newest N (list: {_SHOWN}, else all)")
    chosen.add_argument("--ids", action="store_true", help="list: only the ids, one a line, for other commands")
    out = parser.add_argument_group("where to")
    out.add_argument("--out", metavar="PATH", help="export: FILE.csv, FILE.parquet, or a new folder that another person can open")
    out.add_argument("--to", choices=tuple(TRACKERS), help="publish: which tracker")
    out.add_argument("--address", metavar="URI", help="publish: MLflow's tracking URI or Trackio's Space (default: its own)")
    out.add_argument("--experiment", default=EXPERIMENT, metavar="NAME", help=f"publish: where they go there ({EXPERIMENT})")


def run(args: argparse.Namespace) -> int:
    return ACTIONS[args.action](args, RunStore()) or 0


def _list(args: argparse.Namespace, store: RunStore) -> None:
    if args.words:
        raise InputError(f"expected no id after runs list, got {args.words[0]!r}; runs show ID shows one run")
    found = _filtered(args, store, args.limit or _SHOWN)
    if args.json:
        print_json({"file": str(store.path), "runs": [summary(one) for one in found]})
    elif args.ids:
        print("\n".join(one.id for one in found))
    else:
        print(list_text(found) if found else f"no such runs in {printable(store.path)}")


def _show(args: argparse.Namespace, store: RunStore) -> None:
    one = store.get(_one_id(args))
    pinned = store.pinned(one.set)
    if args.json:
        print_json({**summary(one), "recipe": one.recipe, "pinned": bool(pinned and pinned.id == one.id)})
    else:
        print(show_text(one, pinned))


def _compare(args: argparse.Namespace, store: RunStore) -> None:
    """The first run with each of the others, or one with the pinned run of its set."""
    runs = [store.get(id) for id in args.words]
    if len(runs) == 1 and (pinned := store.pinned(runs[0].set)) and pinned.id != runs[0].id:
        runs.insert(0, pinned)
    if len(runs) < 2:
        raise InputError("expected at least two ids, or one of a set with another pinned run: runs compare ID ID")
    first = runs[0]
    gains = [(one, paired(one, first)) for one in runs[1:]]
    if args.json:
        differences = [{"id": one.id, "value": gain.value, "low": gain.low, "high": gain.high} for one, gain in gains]
        print_json({"baseline": summary(first), "runs": [summary(one) for one in runs[1:]], "differences": differences})
        return
    rows: list[list[object]] = [[first.id, _label(first), percent(first.evaluation.mean), "(the baseline)"]]
    for one, gain in gains:
        told = percent_with_interval(gain.value, (gain.low, gain.high), signed=True)
        rows.append([one.id, _label(one), percent(one.evaluation.mean), told])
    tasks = list(first.accuracies)
    each = [[task, *(percent(one.accuracies[task]) for one in runs)] for task in tasks]
    print(
        f"Top-1 accuracy in percent, {first.evaluation.measured_on}; differences in points, paired bootstrap over images [95 %]."
    )
    print(table(["id", "run", "mean", "difference"], rows, left=(0, 1)))
    print("\n" + table(["task", *(one.id[-6:] for one in runs)], each))


def _note(args: argparse.Namespace, store: RunStore) -> None:
    """``runs name ID TEXT`` and ``runs note ID TEXT``; without a text what is there is removed."""
    if not args.words:
        raise InputError(f"expected the id of a run and a text: runs {args.action} ID TEXT")
    id, text = store.get(args.words[0]).id, " ".join(args.words[1:])
    _told(args, store.update(id, name=text) if args.action == "name" else store.update(id, note=text))


def _star(args: argparse.Namespace, store: RunStore) -> None:
    for id in _ids(args, store):
        _told(args, store.update(id, starred=args.action == "star"))


def _pin(args: argparse.Namespace, store: RunStore) -> None:
    one = store.get(_one_id(args))
    store.pin(one.id) if args.action == "pin" else store.unpin(one.set)
    _told(args, one)


def _delete(args: argparse.Namespace, store: RunStore) -> None:
    """Whole ids are taken as they are, so that damaged runs can go too."""
    damaged = set(store.check()[1])
    ids = [id if id in damaged else store.get(id).id for id in _some_ids(args)]
    count = store.delete(ids)
    print_json({"deleted": count}) if args.json else print(f"deleted {count} {'run' if count == 1 else 'runs'}")


def _export(args: argparse.Namespace, store: RunStore) -> None:
    if not args.out:
        raise InputError("expected --out FILE.csv, FILE.parquet or FOLDER with runs export, got none")
    path = Path(args.out)
    is_file = path.suffix in (".csv", ".parquet")
    check_text_target(path) if is_file else check_folder(path.absolute())
    found = _chosen(args, store)
    rows = tables.table(found)
    if path.suffix == ".csv":
        write_text(path, tables.as_csv(rows))
    elif is_file:
        write_bytes(path, tables.as_parquet(rows))
    else:
        sharing.write_folder(found, path)
    print_json({"runs": len(found), "path": str(path)}) if args.json else print(f"wrote {len(found)} runs to {printable(path)}")


def _import(args: argparse.Namespace, store: RunStore) -> None:
    if len(args.words) != 1:
        raise InputError("expected one folder that runs export wrote: runs import FOLDER")
    found = sharing.read_folder(args.words[0])
    new = sharing.import_runs(found, store)
    told = {"runs": len(found), "new": new}
    print_json(told) if args.json else print(f"read {len(found)} runs, {new} of them new")


def _publish(args: argparse.Namespace, store: RunStore) -> None:
    if not args.to:
        raise InputError(f"expected --to {' or '.join(TRACKERS)} with runs publish, got none")
    found = _chosen(args, store)
    sent = publish(found, args.to, address=args.address, experiment=args.experiment)
    told = f"sent {sent} of {len(found)} runs to {args.to}{'' if sent == len(found) else ', which has the others'}"
    print_json({"runs": len(found), "sent": sent}) if args.json else print(told)


def _check(args: argparse.Namespace, store: RunStore) -> None:
    count, damaged = store.check()
    if args.json:
        print_json({"file": str(store.path), "runs": count, "damaged": list(damaged)})
        return
    print(f"{count} runs in {printable(store.path)}, {len(damaged)} damaged")
    for id in damaged:
        print(f"  {printable(id)}")


ACTIONS: dict[str, Callable[[argparse.Namespace, RunStore], None]] = {
    "list": _list,
    "show": _show,
    "compare": _compare,
    "name": _note,
    "note": _note,
    "star": _star,
    "unstar": _star,
    "pin": _pin,
    "unpin": _pin,
    "export": _export,
    "import": _import,
    "publish": _publish,
    "delete": _delete,
    "check": _check,
}


def _filtered(args: argparse.Namespace, store: RunStore, limit: int | None) -> list[Run]:
    wanted = {"kind": args.kind, "set": args.of, "method": args.method, "group": args.group, "split": args.split}
    return store.find(**wanted, starred=args.starred, text=args.text, limit=limit)


def _chosen(args: argparse.Namespace, store: RunStore) -> list[Run]:
    """The runs whose ids are given, else those of the filters; raises InputError where there is none."""
    found = [store.get(id) for id in args.words] or _filtered(args, store, args.limit)
    if not found:
        raise InputError(f"expected at least one run in {printable(store.path)} for this choice, got none")
    return found


def _some_ids(args: argparse.Namespace) -> list[str]:
    if not args.words:
        raise InputError(f"expected the id of a run: runs {args.action} ID")
    return args.words


def _one_id(args: argparse.Namespace) -> str:
    if len(_some_ids(args)) > 1:
        raise InputError(f"expected one id: runs {args.action} ID, got {len(args.words)}")
    return args.words[0]


def _ids(args: argparse.Namespace, store: RunStore) -> list[str]:
    """All of them are there before any is changed."""
    return [store.get(id).id for id in _some_ids(args)]


def _told(args: argparse.Namespace, one: Run) -> None:
    print_json(summary(one)) if args.json else print(f"{one.id} {_label(one)}{' (starred)' if one.starred else ''}")


def _label(one: Run) -> str:
    alpha = "" if one.alpha is None else f" α={one.alpha:g}"
    mixed = f" ({one.mix_text})" if one.mix_text else ""
    return one.name or f"{one.variant or one.method}{alpha}{mixed}"


def summary(one: Run) -> dict[str, Any]:
    """A run without its recipe and its images; accuracies are shares."""
    data = {name: value for name, value in to_data(one).items() if name not in ("evaluation", "recipe")}
    return {**data, "measured_on": one.evaluation.measured_on, "accuracy": one.evaluation.to_dict()}


def list_text(found: Sequence[Run]) -> str:
    """One line a run, the newest first."""
    rows: list[list[object]] = []
    for one in found:
        measured, marks = one.evaluation, "★" if one.starred else ""
        images = f"{measured.split} {measured.images}"
        shares = [percent(measured.mean), percent(measured.mean_normalised)]
        rows.append([one.id, one.kind, one.set.name, f"{marks}{_label(one)}", *shares, images])
    return table(["id", "kind", "set", "run", "mean", "normalised", "images a task"], rows, left=(0, 1, 2, 3))


def show_text(one: Run, pinned: Run | None) -> str:
    """What was measured, how, and every task's accuracy."""
    measured, made = one.evaluation, made_at(one)
    rows = [
        [name, task.images, percent_with_interval(task.accuracy, task.interval), percent(task.normalised)]
        for name, task in measured.tasks.items()
    ]
    rows.append(["mean", None, percent_with_interval(measured.mean, measured.mean_interval), percent(measured.mean_normalised)])
    about = [
        f"{one.id}: {_label(one)}{' ★' if one.starred else ''}{' (pinned)' if pinned and pinned.id == one.id else ''}",
        f"{one.kind} on {one.set.name}{f', of {one.group}' if one.group else ''}, {made:%Y-%m-%d %H:%M:%S}" if made else one.kind,
        f"{one.method}{f': {parameters_text(one.values)}' if one.values else ''}",
        *([f"mix: {one.mix_text}"] if one.mix_text else []),
        *([f"α = {one.alpha:g} ({one.alpha_origin})"] if one.alpha is not None else []),
        *([f"chosen: {one.tried}"] if one.tried else []),
        *([f"note: {one.note}"] if one.note else []),
        *([f"set: {json.dumps(one.set.hash)[1:-1]}"] if one.set.hash else []),
        f"Top-1 accuracy in percent with its 95 % interval, {measured.measured_on}.",
    ]
    lines = [paragraph(line, indent=2 * bool(place)) for place, line in enumerate(about)]
    return "\n".join([*lines, table(["task", "images", "accuracy [95 %]", "normalised"], rows, indent=2)])
