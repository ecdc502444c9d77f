"""One merge in several processes on one machine: each makes parts ready for the file, and this one writes them in order.

Parameters are merged independently once a method has prepared, so a worker needs the files, what was prepared, and which parts
are its own. The file is the same as from one worker with as many threads as each of several has.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dcmerge.errors import Cancelled, InputError
from dcmerge.merging.output.models import Finish, Ready
from dcmerge.merging.output.rounding import Rounding
from dcmerge.methods import load_plugin, method
from dcmerge.methods.loop import Plan
from dcmerge.vectors.cache import MEMO_BYTES
from dcmerge.vectors.compatibility import Parameter, Report
from dcmerge.vectors.fit import Fit
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.mix import Mix
from dcmerge.vectors.task_vectors import TaskVectors, open_set

#: Parts that each worker may be ahead of the file.
_AHEAD = 3


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


def check_workers(plan: Plan, vectors: TaskVectors, content: str) -> None:
    """Raises InputError for a merge that one process makes alone."""
    if content != "model" or vectors.kind != "full" or vectors.base is None:
        raise InputError("workers: expected whole models to be merged into one, got adapters or a delta alone; leave workers out")
    if "images" in plan.method.needs or plan.method.modules or plan.method.assemble:
        raise InputError(f"workers: {plan.method.slug} looks at images, or makes more than weights; leave workers out")
    if vectors.zoo or vectors.report.copies or any(one.stored is not one for one in (vectors.base, *vectors.experts.values())):
        raise InputError(
            "workers: expected models that are merged as their files have them, got a zoo, tied weights or q, k and v grouped "
            "otherwise; leave workers out"
        )


def in_processes(
    plan: Plan,
    count: int,
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Callable[[Finish], Iterator[Ready]]:
    """The parts of a merge made ready by ``count`` processes, in order. Raises Cancelled between two of them.

    Raises InputError where a worker ended, as the system ends one where memory is short.
    """

    def parts(finish: Finish) -> Iterator[Ready]:
        work, wanted = _work(plan, finish, count), plan.parts()
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(work,))
        waiting: deque[Future[_Made]] = deque()
        try:
            following = iter(range(len(wanted)))
            for done, part in enumerate(wanted):
                while len(waiting) < _AHEAD * count and (place := next(following, None)) is not None:
                    waiting.append(pool.submit(_made, place))
                if cancelled and cancelled():
                    raise Cancelled
                if progress:
                    progress(done / len(wanted), part.name)
                yield waiting.popleft().result().ready(part, finish)
        except BrokenProcessPool:
            raise InputError("workers: a process ended before its work was done; fewer of them have more memory each") from None
        finally:
            for process in list((pool._processes or {}).values()) if waiting else ():
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)

    return parts


def _work(plan: Plan, finish: Finish, count: int) -> _Work:
    vectors = finish.vectors
    assert vectors.base is not None  # see check_workers
    origin = plan.method.origin
    return _Work(
        str(vectors.base.path),
        {task: str(one.path) for task, one in vectors.experts.items()},
        vectors.fit.to_data(),
        vectors.mix.to_data(),
        vectors.tolerance,
        vectors.parameters,
        vectors.report,
        plan.method.slug,
        origin.path if origin else None,
        dict(plan.values),
        plan.prepared,
        plan.layers[0].dtype,
        finish.scale,
        finish.dtype,
        max(1, torch.get_num_threads() // count),
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
        return Ready(part.name, part.rows, torch.from_numpy(self.content).view(info.dtype).reshape(shape), self.lost, self.square)


#: What this process, a worker, merges.
_mine: tuple[Plan, list[Layer], Finish] | None = None


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
    _mine = plan, plan.parts(), Finish(vectors, work.scale, work.dtype)


def _made(place: int) -> _Made:
    assert _mine is not None  # every worker begins
    plan, parts, finish = _mine
    ready = finish(parts[place], plan.delta(parts[place]))
    return _Made(ready.value.contiguous().reshape(-1).view(torch.uint8).numpy(), ready.lost, ready.square)
