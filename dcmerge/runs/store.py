"""The store of runs: one file for all processes of a user, in which nothing is lost by a reload, a restart or a second tab."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dcmerge.errors import InputError
from dcmerge.evaluation import Difference, paired_difference
from dcmerge.runs.fields import checked, evaluation_about, evaluation_of, packed, parsed, task_of
from dcmerge.runs.run import Run, SetId
from dcmerge.runs.schema import connected, store_file

_COLUMNS = ("id", "made", "kind", "grp", "set_name", "set_hash", "method", "variant", "alpha", "alpha_origin", "split", "images")
_COLUMNS += ("seconds", "tried", "name", "note", "starred", "identity", "details")
#: What ``text`` is looked for in.
_SEARCHED = ("id", "name", "note", "method", "variant", "set_name", "grp")
#: SQLite takes so many values in one statement at least.
_AT_ONCE = 500


class RunStore:
    """Records runs and finds them again. Every call opens the file and closes it, so any thread of any process may ask.

    Every method raises InputError, in one sentence, where the file is damaged, of a newer version, or cannot be used.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or store_file()

    def record(self, run: Run) -> str:
        """Keep a run and return its id. The same run again (see ``Run.identity``) only moves to the present.

        Its id, name, note and star stay what they are then.
        """
        return self.record_all([run])[0]

    def record_all(self, runs: Iterable[Run]) -> list[str]:
        """The same for several, all or none of them."""
        ready = [checked(_stamped(run)) for run in runs]
        with connected(self.path, writing=True) as connection:
            return [_record(connection, run) for run in ready]

    def get(self, name: str) -> Run:
        """The run whose id begins so; InputError where none does, or several."""
        with connected(self.path, writing=False) as connection:
            matching = "SELECT id FROM runs WHERE id = ? OR substr(id, 1, length(?)) = ? ORDER BY id <> ?, id LIMIT 2"
            found = [row["id"] for row in connection.execute(matching, (name, name, name, name))] if name else []
            if not found or (len(found) > 1 and found[0] != name):
                got = f"{name!r:.100}, with which {'several ids begin' if found else 'no id begins'}"
                raise InputError(f"run: expected the id of a run or the beginning of just one, got {got}")
            return _read(connection, "id = ?", (found[0],), None)[0]

    def find(
        self,
        *,
        kind: str | None = None,
        set: str | None = None,
        method: str | None = None,
        group: str | None = None,
        split: str | None = None,
        starred: bool | None = None,
        text: str | None = None,
        limit: int | None = 1000,
    ) -> list[Run]:
        """The runs that all of these hold for, the newest first. ``set``: a set's name or the hash of its content.

        ``text``: what id, name, note, method, set or group contain. A run whose entry is damaged is left out: see ``check``.
        """
        exact = {"kind": kind, "method": method, "grp": group, "split": split}
        conditions = [f"{column} = ?" for column, value in exact.items() if value is not None]
        values: list[Any] = [value for value in exact.values() if value is not None]
        if set is not None:
            conditions.append("(set_name = ? OR set_hash = ?)")
            values += [set, set]
        if starred is not None:
            conditions.append("starred = ?")
            values.append(int(starred))
        if text:
            conditions.append(f"({' OR '.join(f'instr(lower({column}), lower(?))' for column in _SEARCHED)})")
            values += [text] * len(_SEARCHED)
        with connected(self.path, writing=False) as connection:
            return _read(connection, " AND ".join(conditions) or "1", values, limit, strict=False)

    def update(self, id: str, *, name: str | None = None, note: str | None = None, starred: bool | None = None) -> Run:
        """Name a run, note something on it, star it; what is None stays."""
        given = {key: value for key, value in (("name", name), ("note", note), ("starred", starred)) if value is not None}
        run = checked(replace(self.get(id), **given))
        with connected(self.path, writing=True) as connection:
            facts = (run.name, run.note, int(run.starred), run.id)
            connection.execute("UPDATE runs SET name = ?, note = ?, starred = ? WHERE id = ?", facts)
        return run

    def delete(self, ids: Sequence[str]) -> int:
        """Forget these runs, damaged ones too; how many there were."""
        with connected(self.path, writing=True) as connection:
            return sum(connection.execute("DELETE FROM runs WHERE id = ?", (id,)).rowcount for id in ids)

    def paired(self, a: str | Run, b: str | Run) -> Difference:
        """Mean accuracy of ``a`` minus ``b``, with its interval by the paired bootstrap; InputError on different images."""
        return paired(*(run if isinstance(run, Run) else self.get(run) for run in (a, b)))

    def pin(self, id: str) -> Run:
        """Make a run the one that the others of its set are shown against, in the place of the one before."""
        run = self.get(id)
        with connected(self.path, writing=True) as connection:
            connection.execute("INSERT OR REPLACE INTO pins VALUES (?, ?)", (run.set.hash, run.id))
        return run

    def unpin(self, set: SetId | str) -> None:
        """Show the runs of a set against none."""
        with connected(self.path, writing=True) as connection:
            connection.execute("DELETE FROM pins WHERE set_hash = ?", (set.hash if isinstance(set, SetId) else set,))

    def pinned(self, set: SetId | str) -> Run | None:
        """The pinned run of a set (by its hash); None where there is none."""
        wanted = set.hash if isinstance(set, SetId) else set
        condition = "id IN (SELECT run_id FROM pins WHERE set_hash = ?)"
        with connected(self.path, writing=False) as connection:
            return next(iter(_read(connection, condition, (wanted,), 1, strict=False)), None)

    def count(self) -> int:
        """How many runs there are, damaged ones included."""
        with connected(self.path, writing=False) as connection:
            return connection.execute("SELECT count(*) FROM runs").fetchone()[0]

    def check(self) -> tuple[int, tuple[str, ...]]:
        """How many runs there are, and the ids of those whose entries are damaged; InputError where the whole file is."""
        with connected(self.path, writing=False) as connection:
            told = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if told != "ok":
                raise sqlite3.DatabaseError(str(told))
            ids = [row["id"] for row in connection.execute("SELECT id FROM runs")]
            whole = {run.id for run in _read(connection, "1", (), None, strict=False)}
        return len(ids), tuple(id for id in ids if id not in whole)


def paired(a: Run, b: Run) -> Difference:
    """``RunStore.paired`` of two runs at hand."""
    if a.images != b.images:
        raise InputError(
            f"runs: expected two on the same images, got {a.id} on {a.evaluation.measured_on} and {b.id} on "
            f"{b.evaluation.measured_on}{', which are others' if a.evaluation.measured_on == b.evaluation.measured_on else ''}"
        )
    return paired_difference(a.evaluation, b.evaluation)


def _stamped(run: Run) -> Run:
    """With an id and the time, where it has none."""
    now = datetime.now(UTC)
    made = run.made or now.isoformat(timespec="milliseconds")
    return replace(run, id=run.id or f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}", made=made)


def _record(connection: sqlite3.Connection, run: Run) -> str:
    known = connection.execute("SELECT id FROM runs WHERE identity = ?", (run.identity,)).fetchone()
    if known:
        connection.execute("UPDATE runs SET made = max(made, ?) WHERE id = ?", (run.made, known["id"]))
        return known["id"]
    if connection.execute("SELECT 1 FROM runs WHERE id = ?", (run.id,)).fetchone():
        run = _stamped(replace(run, id=""))  # somebody else's run of that id
    row = _columns(run)
    connection.execute(f"INSERT INTO runs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})", row)
    for place, task in enumerate(run.evaluation.tasks.values()):
        facts = (run.id, place, task.task, task.images, packed(task.hits), task.expert, task.joint_hits)
        connection.execute("INSERT INTO accuracies VALUES (?, ?, ?, ?, ?, ?, ?)", facts)
    return run.id


def _columns(run: Run) -> tuple[Any, ...]:
    """The values of ``_COLUMNS``."""
    details = {"values": dict(run.values), "recipe": run.recipe, "evaluation": evaluation_about(run.evaluation)}
    about = (run.id, run.made, run.kind, run.group, run.set.name, run.set.hash, run.method, run.variant)
    measured = (run.alpha, run.alpha_origin, run.split, run.images, run.seconds, run.tried)
    return (*about, *measured, run.name, run.note, int(run.starred), run.identity, json.dumps(details))


def _read(
    connection: sqlite3.Connection, condition: str, values: Sequence[Any], limit: int | None, *, strict: bool = True
) -> list[Run]:
    """The runs of a condition on the table, the newest first; a damaged one is left out unless ``strict``."""
    last = f" ORDER BY made DESC, id DESC LIMIT {-1 if limit is None else int(limit)}"
    rows = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM runs WHERE {condition}{last}", values).fetchall()
    tasks = _tasks(connection, [row["id"] for row in rows])
    found = []
    for row in rows:
        try:
            found.append(_run(row, tasks.get(row["id"], [])))
        except InputError as error:
            if strict:
                raise InputError(f"run {row['id']!r:.60}: its entry is damaged ({error})") from None
    return found


def _tasks(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, list[sqlite3.Row]]:
    """The rows of the tasks of these runs, in order."""
    found: dict[str, list[sqlite3.Row]] = {}
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        for row in connection.execute(f"SELECT * FROM accuracies WHERE run_id IN ({marks}) ORDER BY run_id, place", some):
            found.setdefault(row["run_id"], []).append(row)
    return found


def _run(row: sqlite3.Row, tasks: Sequence[sqlite3.Row]) -> Run:
    """The run of a row; raises InputError where a value is not of its kind."""
    details = parsed("details", row["details"])
    if not isinstance(details, Mapping) or not isinstance(details.get("evaluation"), Mapping):
        raise InputError("details: expected values, recipe and evaluation, got something else")
    values, recipe = details.get("values"), details.get("recipe")
    if not isinstance(values, Mapping) or not isinstance(recipe, Mapping | None):
        raise InputError("values: expected names with values, got something else")
    measured = [task_of(one["task"], one["images"], one["hits"], one["expert"], one["joint"]) for one in tasks]
    texts = {name: row[name] for name in ("method", "images", "alpha_origin", "variant", "tried", "name", "note", "id", "made")}
    if not all(isinstance(text, str) for text in (row["set_name"], row["set_hash"])):
        raise InputError("set: expected a name and a hash, got something else")
    if not isinstance(row["alpha"], float | None) or not isinstance(row["seconds"], float | None):
        raise InputError("alpha: expected a number, got something else")
    evaluation = evaluation_of(details["evaluation"], measured)
    return checked(
        Run(
            row["kind"],
            SetId(row["set_name"], row["set_hash"]),
            evaluation=evaluation,
            values=values,
            recipe=recipe,
            alpha=row["alpha"],
            seconds=row["seconds"],
            starred=row["starred"] == 1,
            group=row["grp"],
            **texts,
        )
    )
