"""Where independent pieces of work run: one after another in this process, or on the machines of a Ray cluster.

Ray (an optional extra) brings what a cluster needs: work is handed to free nodes with enough processors, and repeated where a
node is lost. A piece of work is done at least once, and its result arrives once.
"""

from __future__ import annotations

import importlib.util
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from dcmerge.errors import Cancelled, InputError

In = TypeVar("In")
Out = TypeVar("Out")
IsCancelled = Callable[[], bool]

RAY = "ray"
#: The address that starts a cluster on this machine, and seconds between two looks at who is done.
LOCAL, _LOOK_EVERY = "local", 0.2
#: Pieces of work for each place that may be ahead of the one whose result is waited for.
_AHEAD = 3


class Engine(Protocol):
    """Runs a function over items. ``cancelled`` is asked between them; Cancelled is raised where it says so."""

    def map(
        self, function: Callable[[In], Out], items: Iterable[In], cancelled: IsCancelled | None = None
    ) -> Iterator[tuple[In, Out]]:
        """(item, result) as they are ready, in any order. The next item is asked for only when a place for it is free."""
        ...


class Here:
    """One after another, in this process."""

    def map(
        self, function: Callable[[In], Out], items: Iterable[In], cancelled: IsCancelled | None = None
    ) -> Iterator[tuple[In, Out]]:
        for item in items:
            _end_if(cancelled)
            yield item, function(item)


@dataclass(frozen=True)
class Ray:
    """On a Ray cluster. ``address``: HOST:PORT, ray://HOST:PORT, "auto", or "local", which starts one on this machine.

    ``cpus`` and ``gpus`` are what one piece of work takes. The function and the items must pickle, and this package must be
    installed on every node.
    """

    address: str = LOCAL
    cpus: float = 1
    gpus: float = 0

    def map(
        self, function: Callable[[In], Out], items: Iterable[In], cancelled: IsCancelled | None = None
    ) -> Iterator[tuple[In, Out]]:
        """Raises InputError for a cluster that does not answer, or has no node with so many processors."""
        ray = _connected(self.address)
        begun, waiting, left = self._begun(ray, function), {}, iter(items)
        is_over = False
        try:
            while waiting or not is_over:
                _end_if(cancelled)
                while not is_over and len(waiting) < self._places(ray):
                    try:
                        item = next(left)
                    except StopIteration:
                        is_over = True
                    else:
                        waiting[begun(item)] = item
                done, _ = ray.wait(list(waiting), timeout=_LOOK_EVERY) if waiting else ([], [])
                for one in done:
                    yield waiting.pop(one), _result(ray, one)
        finally:
            for one in waiting:
                ray.cancel(one, force=True)

    def in_order(
        self, function: Callable[[In], Out], items: Iterable[In], cancelled: IsCancelled | None = None
    ) -> Generator[Out, None, None]:
        """The results in the order of the items; a few for each place are computed ahead of what is asked for.

        Raises as ``map`` does.
        """
        ray = _connected(self.address)
        begun, left = self._begun(ray, function), iter(items)
        waiting: deque[Any] = deque()
        try:
            while True:
                for item in islice(left, max(0, _AHEAD * self._places(ray) - len(waiting))):
                    waiting.append(begun(item))
                if not waiting:
                    return
                while not ray.wait([waiting[0]], timeout=_LOOK_EVERY)[0]:
                    _end_if(cancelled)
                _end_if(cancelled)
                yield _result(ray, waiting.popleft())
        finally:
            for one in waiting:
                ray.cancel(one, force=True)

    def _begun(self, ray: Any, function: Callable[[In], Out]) -> Callable[[In], Any]:
        """Hands an item out and returns the reference to its result."""
        work = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=-1)(_with_threads)
        shared, threads = ray.put(function), max(1, int(self.cpus))
        return lambda item: work.remote(shared, item, threads)

    def _places(self, ray: Any) -> int:
        """How many pieces of work the cluster holds at once, as it is now: nodes come and go."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        free = [min(_times(node, "CPU", self.cpus), _times(node, "GPU", self.gpus)) for node in nodes]
        if nodes and max(free) < 1:
            raise InputError(
                f"engine: expected a node with {self.cpus:g} CPU and {self.gpus:g} GPU for each piece of work, got a cluster "
                f"of {len(nodes)} without such a node"
            )
        return max(1, sum(free))


def _times(node: dict[str, float], name: str, needed: float) -> int:
    return int(node.get(name, 0) / needed) if needed else 1_000_000


def check_ray() -> None:
    """Raises InputError where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("engine: expected Ray to be installed (pip install dcmerge[ray]), got no module of that name")


def _connected(address: str) -> Any:
    check_ray()
    import ray  # pyright: ignore[reportMissingImports]

    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"address: expected a Ray cluster that answers, got {address}: {reason}") from None
    return ray


def _with_threads(function: Callable[[In], Out], item: In, threads: int) -> Out:
    """On a node: with as many threads as processors were asked for."""
    import torch

    torch.set_num_threads(threads)
    return function(item)


def _result(ray: Any, reference: Any) -> Any:
    """What came of it; an error is raised as it was raised on the node."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


def _end_if(cancelled: IsCancelled | None) -> None:
    if cancelled and cancelled():
        raise Cancelled
