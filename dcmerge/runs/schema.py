"""The store's file: where it lies, how it is opened, and its tables in the order in which they came to be."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dcmerge.checkpoints.paths import reason, shown
from dcmerge.errors import InputError
from dcmerge.runtime.state_files import jobs_folder

FILE = "runs.sqlite3"
#: How long a writer waits for another one, in seconds, and how long a text or blob of the file may be, in bytes.
_PATIENCE, _LONGEST = 20.0, 32 << 20
#: One entry a version; ``PRAGMA user_version`` tells how many a file has. Never change one that was released: add another.
MIGRATIONS = (
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, made TEXT NOT NULL, kind TEXT NOT NULL, grp TEXT NOT NULL,
        set_name TEXT NOT NULL, set_hash TEXT NOT NULL, method TEXT NOT NULL, variant TEXT NOT NULL,
        alpha REAL, alpha_origin TEXT NOT NULL, split TEXT NOT NULL, images TEXT NOT NULL,
        seconds REAL, tried TEXT NOT NULL, name TEXT NOT NULL, note TEXT NOT NULL, starred INTEGER NOT NULL,
        identity TEXT NOT NULL UNIQUE, details TEXT NOT NULL
    );
    CREATE INDEX runs_by_time ON runs (made);
    CREATE INDEX runs_by_set ON runs (set_hash, made);
    CREATE INDEX runs_by_group ON runs (grp);
    CREATE TABLE accuracies (
        run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, place INTEGER NOT NULL, task TEXT NOT NULL,
        images INTEGER NOT NULL, hits BLOB NOT NULL, expert REAL, joint INTEGER, PRIMARY KEY (run_id, place)
    ) WITHOUT ROWID;
    CREATE TABLE pins (
        set_hash TEXT PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE
    ) WITHOUT ROWID;
    """,
)


def store_file() -> Path:
    """The store of this machine's user: in the folder of the jobs, so that who shares the one shares the other."""
    return jobs_folder() / FILE


@contextmanager
def connected(path: Path, *, writing: bool) -> Iterator[sqlite3.Connection]:
    """A connection to the store, its tables brought up to date; a file that is not there yet is made. All or nothing.

    Raises InputError, in one sentence, where the file is damaged, of a newer version, busy, or cannot be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise InputError(f"runs: expected a file at {shown(path)}, got something else")
        with closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as connection:
            _prepare(connection)
            _migrate(connection, path)
            connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
            yield connection
            connection.execute("COMMIT")
    except (sqlite3.Error, OSError, OverflowError) as error:
        raise InputError(_told(path, error)) from None


def _prepare(connection: sqlite3.Connection) -> None:
    """Nothing in a stranger's file may act: no functions from its schema, and no value of any length."""
    connection.row_factory = sqlite3.Row
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    for setting in ("trusted_schema = OFF", "foreign_keys = ON", "synchronous = NORMAL", "journal_mode = WAL"):
        connection.execute(f"PRAGMA {setting}")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Several processes may open a new file at once: who comes second finds the work done."""
    if _version(connection) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > len(MIGRATIONS):
            raise InputError(
                f"runs: expected a store of version {len(MIGRATIONS)} or older, got {version} in {shown(path)}: a newer dcmerge "
                "wrote it"
            )
        for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in filter(str.strip, statements.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _told(path: Path, error: Exception) -> str:
    """What happened to the file, and the way out."""
    if isinstance(error, OSError):
        return f"runs: expected a file that can be written at {shown(path)}, got: {reason(error)}"
    if isinstance(error, sqlite3.OperationalError) and not str(error).startswith(("no such", "table ")):
        action = "is it in use, or may it not be written" if os.path.exists(path) else "it could not be made"
        return f"runs: expected to read and write {shown(path)}, got: {reason(error)} ({action})"
    return (
        f"runs: expected the store of runs in {shown(path)}, got a damaged or foreign file ({reason(error)}); move it away, and "
        "a new one is made"
    )
