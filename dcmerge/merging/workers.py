"""One merge in several processes, here or on a cluster: each makes parts ready for the file, and this one writes them in order.

Parameters are merged independently once a method has prepared, so a worker needs the files, what was prepared, and which parts
are its own; it reads no others. The file is the same as from one worker with as many threads as each of several has.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from dcmerge.errors import Cancelled, InputError
from dcmerge.merging.output.models import Finish, Parts, Ready
from dcmerge.merging.output.rounding import Rounding
from dcmerge.methods import load_plugin, method
from dcmerge.methods.loop import Plan, finished
from dcmerge.runtime.engines import Ray
from dcmerge.vectors.cache import MEMO_BYTES
from dcmerge.vectors.compatibility import Parameter, Report
from dcmerge.vectors.fit import Fit
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.mix import Mix
from dcmerge.vectors.task_vectors import Rows, TaskVectors, open_set

#: Parts that each worker may be ahead of the file.
_AHEAD = 3
#: A part: the name of its parameter, and its rows; None of the whole.
_Place = tuple[str, Rows | None]


@dataclass(frozen=True)
class _Work:
    """What a worker opens and how it merges: plain data, which goes from process to process."""

    base: str
    experts: Mapping[str, str]
    fit: Mapping[str, Any]
    mix: Mapping[str, Any]
    tolerance: float
    parameters: Mapping[str, Parameter]
    report: Report
    slug: str
    plugin: str | None
    values: Mapping[str, Any]
    prepared: Any
    arithmetic: torch.dtype
    scale: float
    dtype: torch.dtype | None
    threads: int


def parts_by(workers: int | Ray, plan: Plan, content: str, task: str | None, **how: Any) -> Parts | None:
    """What merges and makes ready for the file, in processes, on a cluster or here; what takes long is kept on the way.

    None where this process merges and a part cannot be made ready alone; InputError where others are to and cannot. ``how``:
    ``progress`` and ``cancelled``.
    """
    if isinstance(workers, Ray):
        check_workers(plan, content, "engine")
        return going_on(plan, on_cluster(plan, workers, **how))
    if workers > 1:
        check_workers(plan, content)
        return going_on(plan, in_processes(plan, workers, **how))
    if task is not None or plan.method.modules or plan.method.assemble or not plan.layers:
        return None
    here = partial(finished, plan, **how)
    if plan.all_in_parts:
        return here
    return going_on(plan, here) if plan.layers[0].vectors.in_rows else None


def check_workers(plan: Plan, content: str, asked: str = "workers") -> None:
    """Raises InputError for a merge that one process makes alone; ``asked`` is the name of what asked for several."""
    vectors = plan.layers[0].vectors
    if content != "model" or vectors.kind != "full" or vectors.base is None:
        raise InputError(f"{asked}: expected whole models to be merged into one, got adapters or a delta; leave {asked} out")
    if "images" in plan.method.needs or plan.method.modules or plan.method.assemble:
        raise InputError(f"{asked}: {plan.method.slug} looks at images, or makes more than weights; leave {asked} out")
    if vectors.zoo or vectors.report.copies or any(one.stored is not one for one in (vectors.base, *vectors.experts.values())):
        raise InputError(
            f"{asked}: expected models that are merged as their files have them, got a zoo, tied weights or q, k and v grouped "
            f"otherwise; leave {asked} out"
        )


def going_on(plan: Plan, parts: Parts) -> Parts:
    """The same, in which what a killed merge of the same had finished is not merged again."""

    def all_of_them(finish: Finish) -> Generator[Ready, None, None]:
        known = {layer.name for layer in plan.layers if finish.knows(layer.name)}
        lacking = [layer for layer in plan.layers if layer.name not in known]
        with closing(parts(finish, lacking)) as made:
            for layer in plan.layers:
                if layer.name in known:
                    yield finish.known(layer.name)
                    continue
                for _ in plan.parts([layer]):
                    ready = next(made)
                    finish.keep(ready)
                    yield ready

    return all_of_them


def in_processes(
    plan: Plan,
    count: int,
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Parts:
    """The parts of a merge made ready by ``count`` processes, in order. Raises Cancelled between two of them.

    Raises InputError where a worker ended, as the system ends one where memory is short.
    """

    def parts(finish: Finish, layers: Sequence[Layer] | None = None) -> Generator[Ready, None, None]:
        work, wanted = _work(plan, finish, max(1, torch.get_num_threads() // count)), plan.parts(layers)
        with closing(_from_processes(work, count, wanted)) as made:
            yield from _ready(made, wanted, finish, progress, cancelled)

    return parts


def on_cluster(
    plan: Plan,
    cluster: Ray,
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Parts:
    """The same on the nodes of a cluster, where the files lie under the same paths. Raises as ``Ray.map`` does."""

    def parts(finish: Finish, layers: Sequence[Layer] | None = None) -> Generator[Ready, None, None]:
        work, wanted = _work(plan, finish, max(1, int(cluster.cpus))), plan.parts(layers)
        here = partial(_made_there, uuid.uuid4().hex, work)
        with closing(cluster.in_order(here, map(_place, wanted), cancelled)) as made:
            yield from _ready(made, wanted, finish, progress, cancelled)

    return parts


def _ready(
    made: Iterator[_Made],
    wanted: Sequence[Layer],
    finish: Finish,
    progress: Callable[[float, str], None] | None,
    cancelled: Callable[[], bool] | None,
) -> Iterator[Ready]:
    for done, part in enumerate(wanted):
        if cancelled and cancelled():
            raise Cancelled
        if progress:
            progress(done / len(wanted), part.name)
        yield next(made).ready(part, finish)


def _place(part: Layer) -> _Place:
    return part.name, part.rows


def _from_processes(work: _Work, count: int, wanted: Sequence[Layer]) -> Generator[_Made, None, None]:
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(work,))
    waiting: deque[Future[_Made]] = deque()
    try:
        following = map(_place, wanted)
        for _ in wanted:
            while len(waiting) < _AHEAD * count and (place := next(following, None)) is not None:
                waiting.append(pool.submit(_made, place))
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise InputError("workers: a process ended before its work was done; fewer of them have more memory each") from None
    finally:
        for process in list((pool._processes or {}).values()) if waiting else ():
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _work(plan: Plan, finish: Finish, threads: int) -> _Work:
    vectors = finish.vectors
    assert vectors.base is not None  # see check_workers
    origin = plan.method.origin
    return _Work(
        os.path.abspath(vectors.base.path),
        {task: os.path.abspath(one.path) for task, one in vectors.experts.items()},
        vectors.fit.to_data(),
        vectors.mix.to_data(),
        vectors.tolerance,
        vectors.parameters,
        vectors.report,
        plan.method.slug,
        os.path.abspath(origin.path) if origin and origin.path else None,
        dict(plan.values),
        plan.prepared,
        plan.layers[0].dtype,
        finish.scale,
        finish.dtype,
        threads,
    )


@dataclass(frozen=True)
class _Made:
    """What a worker sends back: the bytes of a part, which are cheap to send."""

    content: np.ndarray
    lost: Rounding
    square: float

    def ready(self, part: Layer, finish: Finish) -> Ready:
        info = finish.written(part.name)
        shape = info.shape if part.rows is None else (part.rows[1] - part.rows[0], *info.shape[1:])
        content = self.content if self.content.flags.writeable else self.content.copy()  # a cluster's store is not to be changed
        return Ready(part.name, part.rows, torch.from_numpy(content).view(info.dtype).reshape(shape), self.lost, self.square)


#: What this process, a worker, merges; and which merge that is on a cluster, whose processes serve one after another.
_mine: tuple[Plan, dict[str, Layer], Finish] | None = None
_which = ""


def _end_with_parent() -> None:
    """A parent that is killed tells nobody: without this its workers would wait for it for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _begin(work: _Work) -> None:
    global _mine
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(work.threads)
    if work.plugin:
        load_plugin(work.plugin)
    fit = Fit.of(work.fit)
    base, experts = open_set(work.base, work.experts, fit=fit)
    vectors = TaskVectors(base, experts, dict(work.parameters), work.report, tolerance=work.tolerance, fit=fit)
    vectors.memo.max_bytes = MEMO_BYTES
    vectors = vectors.mixed(Mix.from_data(work.mix))
    layers = tuple(Layer(vectors, parameter, work.arithmetic) for parameter in vectors.parameters.values())
    plan = Plan(method(work.slug), layers, work.values, work.prepared)
    _mine = plan, {layer.name: layer for layer in layers}, Finish(vectors, work.scale, work.dtype)


def _made_there(which: str, work: _Work, place: _Place) -> _Made:
    """``_made`` on a cluster: the files are opened for the first part of a merge and kept for the next ones."""
    global _which
    if which != _which:
        _begin(work)
        _which = which
    return _made(place)


def _made(place: _Place) -> _Made:
    assert _mine is not None  # every worker begins
    plan, layers, finish = _mine
    part = replace(layers[place[0]], rows=place[1])
    ready = finish(part, plan.delta(part))
    return _Made(ready.value.contiguous().reshape(-1).view(torch.uint8).numpy(), ready.lost, ready.square)
