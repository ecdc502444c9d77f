"""The work of a sweep's job, shared by several processes; ``python -m dcmerge.jobs.sweeping FOLDER NUMBER`` is a helper.

The job's worker prepares the study, starts the helpers, and takes points as they do; when none is left it looks at test. A helper
ends with the worker that started it, however that ends: whatever it was looking at is put back when the job goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dcmerge.checkpoints import Roots
from dcmerge.errors import Cancelled
from dcmerge.jobs.record import Job, read_job
from dcmerge.jobs.specification import CHOSEN_STEP, TEST_STEP, Sweep, point_step
from dcmerge.methods import load_plugin
from dcmerge.runs import SetId
from dcmerge.runtime.processes import environment, module_command
from dcmerge.sets.model_sets import ModelSet, open_set_by_name
from dcmerge.studies.sweep import Found, Point, described
from dcmerge.studies.sweep.recording import Recorder
from dcmerge.studies.sweep.running import IsCancelled, Worker, arrange, found_in, look_at_test, measure_references, prepare
from dcmerge.studies.sweep.store import Store

Tell = Callable[[float | None, str], None]
_LOOK_EVERY = 0.1


def run_sweep(job: Job, spec: Sweep, models: ModelSet, tell: Tell) -> None:
    """All points that are not finished, then the look at test."""
    cancelled, bench = job.cancel_marker.exists, models.images
    _share_threads(spec)
    store = Store(job.study, spec.plan)
    try:
        tell(None, "zero-shot and experts")
        arrange(bench, spec.plan, store)
        store.retry_failed()
        with _helpers(job, spec) as helpers:
            measure_references(bench, spec.plan, store, cancelled)  # meanwhile the helpers import what they need
            worker = _worker(job, spec, models, store, tell, cancelled)
            while True:
                worker.run()
                _await(helpers, cancelled)
                if not store.contents().remaining:
                    break
                prepare(bench, spec.plan, store, cancelled)  # a helper died at a point
        told = job.steps()
        worker.catch_up(lambda number: point_step(number) in told)  # no helper is at work now
        recorder = _recorder(job, models)
        look_at_test(bench, spec.plan, store, recorder=recorder, progress=tell, cancelled=cancelled)
        found = found_in(spec.plan, store)
        if spec.plan.test and found and found.tests and TEST_STEP not in job.steps():
            job.finish_step(TEST_STEP, found.tests[-1]["values"])
        if found and found.best:
            print(found.origin, flush=True)
            hash = SetId.of(models.vectors, models.name).hash
            best = found.best
            chosen = {"parameters": best.parameters, "mix": best.mix, "scale": best.scale}
            chosen |= {"origin": found.origin, "hash": hash}
            job.finish_step(CHOSEN_STEP, chosen)
    finally:
        store.close()


def _worker(job: Job, spec: Sweep, models: ModelSet, store: Store, tell: Tell, cancelled: IsCancelled) -> Worker:
    def keep(point: Point, found: Found) -> None:
        estimate = found.estimate(point)
        print(f"point {point.number}, {described(point)}: {100 * estimate.value:.1f} %, {point.images} images a task", flush=True)
        job.finish_step(point_step(point.number), {"values": described(point), "mean": estimate.value, "images": point.images})

    def failed(number: int, reason: str) -> None:
        print(f"point {number} failed: {reason}", flush=True)
        job.finish_step(point_step(number), {"error": reason})

    how: dict[str, Any] = {"recorder": _recorder(job, models), "progress": tell, "cancelled": cancelled}
    return Worker(models.images, spec.plan, store, on_point=keep, on_error=failed, **how)


def _recorder(job: Job, models: ModelSet) -> Recorder:
    return Recorder(models.images, models.name, job.id)


def _share_threads(spec: Sweep) -> None:
    """So many processes together run as many threads as there are cores."""
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // spec.workers)))


@contextmanager
def _helpers(job: Job, spec: Sweep) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The other processes of the sweep; none of them outlives the block."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(1, spec.workers):
            command = module_command("dcmerge.jobs.sweeping", str(job.folder), str(number))
            started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment()))
        yield started
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def _await(helpers: list[subprocess.Popen[bytes]], cancelled: IsCancelled) -> None:
    """Wait for the last points of the others. Raises Cancelled."""
    while any(process.poll() is None for process in helpers):
        if cancelled():
            raise Cancelled
        time.sleep(_LOOK_EVERY)


def help_out(folder: Path, number: int) -> None:
    """Take points of a sweep until none is left, somebody cancels it, or its worker is gone."""
    parent = os.getppid()
    job = read_job(folder)
    if job is None or not isinstance(job.specification, Sweep):
        raise SystemExit(f"expected a sweep's job in {folder}, found none")
    for path, sha256 in job.plugins:
        load_plugin(path, sha256=sha256)
    spec = job.specification
    _share_threads(spec)
    models = open_set_by_name(spec.set, Roots(job.roots))
    store = Store(job.study, spec.plan, number)

    def is_over() -> bool:
        return job.cancel_marker.exists() or os.getppid() != parent

    try:
        _await_references(models, store, is_over)
        _worker(job, spec, models, store, lambda share, text: None, is_over).run()
    except Cancelled:
        return
    finally:
        store.close()


def _await_references(models: ModelSet, store: Store, is_over: IsCancelled) -> None:
    """Until the worker has measured base and experts; meanwhile the encoder is built, whose import takes seconds.

    Raises Cancelled.
    """
    models.images.encoder.check(models.images.base_weights())
    while store.references is None:
        if is_over():
            raise Cancelled
        time.sleep(_LOOK_EVERY)


if __name__ == "__main__":
    help_out(Path(sys.argv[1]), int(sys.argv[2]))
