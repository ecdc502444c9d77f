"""``kill -9`` at any moment: the same command again gives what an undisturbed one gives, and nothing hidden is left."""

from __future__ import annotations

import csv
import io
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import open_clip  # noqa: F401  (once here, and not in every process that is forked)
import optuna  # noqa: F401
import pytest

from dcmerge import jobs
from dcmerge.cli import main
from tests.corpus.images import evaluated
from tests.faults.conftest import ADAPTERS, KILLS, MODELS, Fork, parts
from tests.jobs.conftest import wait_for_end, wait_until

pytestmark = pytest.mark.timeout(120 + 20 * KILLS)
KINDS: dict[str, tuple[str, Sequence[str]]] = {
    "a file": ("m.safetensors", ("merge", *MODELS, "--method=ties", "--out=m.safetensors", "--force")),
    "a file by way of the cache": ("m.safetensors", ("merge", *MODELS, "--method=dc_merge", "--out=m.safetensors", "--force")),
    "a delta": ("m.safetensors", ("merge", *MODELS, "--method=average", "--delta-only", "--out=m.safetensors", "--force")),
    "a folder": ("m", ("merge", *MODELS, "--method=average", "--out=m", "--force")),
    "an adapter": ("m", ("merge", *ADAPTERS, "--method=dc_merge", "--as-adapter", "--out=m", "--force")),
}


#: A job in the background needs a runner and a worker, which take seconds to start.
JOB_KILLS = max(1, KILLS // 3)
#: A kill may come after the end of the run; so many are tried for each that is to meet one.
_TRIES = 5


def content(path: Path) -> dict[str, bytes]:
    """Every file below a path, or the file."""
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in files}


def fresh(place: Path, out: str) -> None:
    """As before the first run."""
    for path in (place / out, place / "cache"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.parametrize(("out", "words"), KINDS.values(), ids=KINDS)
def test_after_a_kill_the_same_command_is_right(
    out: str, words: Sequence[str], place: Path, forked: Fork, draw: random.Random
) -> None:
    assert forked(words)[0] == 0, forked.log.read_text()
    wanted = content(place / out)
    fresh(place, out)
    _, seconds = forked(words)
    met = 0
    for _ in range(_TRIES * KILLS):
        fresh(place, out)
        moment = draw.uniform(0.0, seconds)
        code, _ = forked(words, kill_after=moment)
        met += code is None
        seconds = min(seconds, moment) if code is not None else seconds  # it had ended by then: this machine is faster now
        if (place / out).exists():
            assert content(place / out) == wanted  # whole, or not there
        assert forked(words)[0] == 0, forked.log.read_text()
        assert content(place / out) == wanted
        assert parts(place) == []
        if met == KILLS:
            return
    pytest.fail(f"only {met} of {KILLS} kills met a run")


def test_after_a_kill_a_file_that_was_there_is_the_old_one_or_the_new_one(place: Path, forked: Fork, draw: random.Random) -> None:
    words = ("merge", *MODELS, "--method=average", "--out=m.safetensors", "--force")
    assert forked(words)[0] == 0
    new = (place / "m.safetensors").read_bytes()
    _, seconds = forked(words)
    for _ in range(KILLS):
        (place / "m.safetensors").write_bytes(b"old")
        forked(words, kill_after=draw.uniform(0.0, seconds))
        assert (place / "m.safetensors").read_bytes() in (b"old", new)


def test_after_a_kill_a_sweep_goes_on_and_no_point_is_lost(place: Path, forked: Fork, draw: random.Random) -> None:
    tiny = place / "tiny"
    tiny.mkdir()
    models = [
        word for word in evaluated(tiny, lambda _: None) if word.startswith("--") and "method" not in word and "scale" not in word
    ]
    words = (
        "sweep",
        *models,
        "--method=ties",
        "--over=density=0.1:0.9",
        "--trials=5",
        "--scale=1",
        "--csv=points.csv",
        "--force",
    )
    assert forked(words)[0] == 0, forked.log.read_text()
    wanted = (place / "points.csv").read_text()
    shutil.rmtree(place / "jobs")
    _, seconds = forked(words)
    for _ in range(KILLS):
        shutil.rmtree(place / "jobs")
        (place / "points.csv").unlink(missing_ok=True)
        forked(words, kill_after=draw.uniform(0.0, seconds))
        assert forked(words)[0] == 0, forked.log.read_text()
        assert without_times((place / "points.csv").read_text()) == without_times(wanted)
        assert parts(place) == []


def test_after_a_kill_a_job_in_the_background_is_resumed_and_right(place: Path, draw: random.Random) -> None:
    wanted, seconds = None, 0.0
    for count in range(1 + JOB_KILLS):  # the first one is not disturbed
        shutil.rmtree(place / "jobs", ignore_errors=True)
        (place / "m.safetensors").unlink(missing_ok=True)
        assert main(["merge", *MODELS, "--method=ties", "--out=m.safetensors", "--background"]) == 0
        (job,) = jobs.all_jobs()
        begun = time.monotonic()
        wait_until(lambda job=job: job.journal.events("worker"), "the worker begins")
        if count:
            time.sleep(draw.uniform(0.0, seconds))
            with suppress(ProcessLookupError):  # it has ended
                os.kill(job.journal.events("worker")[-1]["pid"], signal.SIGKILL)
        wait_for_end(job)
        seconds = seconds or time.monotonic() - begun
        if job.state is not jobs.State.DONE:
            jobs.resume(job.id)
            wait_for_end(job)
        assert job.state is jobs.State.DONE, job.log_tail()
        assert parts(place) == []
        wanted = wanted or content(place / "m.safetensors")
        assert content(place / "m.safetensors") == wanted


def without_times(table: str) -> list[list[str]]:
    """The rows of the points, in order of their values, but for the seconds that they took."""
    rows = list(csv.DictReader(io.StringIO(table)))
    assert rows
    return sorted([value for name, value in row.items() if "second" not in name and name != "point"] for row in rows)
