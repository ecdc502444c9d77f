"""How long a merge into a file takes and how much memory, before it is started: from shapes, and rates measured in a moment.

The model counts what the merge does: every byte of every file is read three times (the report, the hash in the recipe, the merge)
and the result is written; DC-Merge adds the eigenvectors and products of every matrix. Nothing is taken from a cache, and files
that are not in the system's memory yet take their reading time on top. Rates are this machine's, as busy as it is now.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, StoredCheckpoint, total
from dcmerge.runtime.threads import compute_device, on_all_threads
from dcmerge.spectral.linalg import square_of
from dcmerge.vectors.cache import MEMO_BYTES
from dcmerge.vectors.compatibility import PART_ENTRIES, Kind, Parameter
from dcmerge.vectors.memory_needed import predicted_peak_bytes

#: Bytes a second that a disk takes, flushed: a slow solid-state disk's.
_WRITING = 500e6
#: Seconds that a matrix of one task takes however small it is: a dozen calls of small operations.
_PER_MATRIX = 4e-4
#: Where ``linalg`` takes eigenvectors in float32 first: of a Gram matrix this large, and for a polar factor.
_LARGE_GRAM, _LARGE_POLAR, _BESIDE = 512, 100, 16
_PROCESS_BYTES = 600 << 20
#: Seconds of opening and checking, however small the files are.
_START = 0.1
AS_ADAPTER = "DC-Merge, written as an adapter"


@dataclass(frozen=True)
class Cost:
    """Seconds, and the largest resident memory in bytes.

    ``mapped_bytes`` of it are pages of state dicts, which stay mapped: the system takes them back where memory is short.
    """

    seconds: float
    peak_bytes: int
    mapped_bytes: int = 0


@dataclass(frozen=True)
class Rates:
    """Seconds: of a byte that is examined, hashed and summed; of a multiplication in a product; of n³ of n eigenvectors.

    ``_at_once`` is for several matrices in a row, which share the threads.
    """

    byte: float
    product32: float
    product64: float
    eigen32: float
    eigen64: float
    eigen32_at_once: float
    eigen64_at_once: float


def predicted_costs(
    base: Checkpoint | None, experts: Mapping[str, Checkpoint], parameters: Iterable[Parameter]
) -> dict[str, Cost]:
    """What plain averaging and DC-Merge of a set into a file will take, by title; measuring takes about half a second.

    Dense weights are written, of adapters in one more row a merged adapter (``merge --as-adapter``).
    """
    parameters = [parameter for parameter in parameters if parameter.mergeable]
    rates, tasks = measured_rates(), len(experts)
    adapters = [expert for expert in experts.values() if isinstance(expert, LoraCheckpoint)]
    ranks = {p.name: [adapter.rank_of(p.name) for adapter in adapters] for p in parameters} if adapters else {}
    out = _dense_bytes(base) if base else sum(4 * p.numel for p in parameters)
    read = sum(file.stat().st_size for one in experts.values() for file in one.files) + (_dense_bytes(base) if base else 0)
    reading = _START + read * rates.byte
    moving = reading + out / _WRITING
    if adapters:
        moving += sum(sum(ranks[p.name]) * p.numel * rates.product32 for p in parameters)
        average, merge = (_peak_of_adapters(parameters, ranks, with_basis=basis) for basis in (False, True))
    else:
        in_rows = all(isinstance(one, StoredCheckpoint) for one in (*([base] if base else []), *experts.values()))
        average, merge = _peak_of_average(parameters, tasks, in_rows=in_rows), predicted_peak_bytes(parameters, tasks)
    singular = sum(_seconds(p, tasks, ranks.get(p.name, []), rates) for p in parameters if p.kind is Kind.MATRIX)
    mapped = sum(
        file.stat().st_size
        for one in (*experts.values(), *([base] if base else []))
        for file in one.files
        if file.suffix not in (".safetensors", ".json")
    )
    costs = {
        "Weight averaging": Cost(moving, average + mapped, mapped),
        "DC-Merge": Cost(moving + singular, merge + mapped, mapped),
    }
    if adapters:  # no dense product is formed, and the result is about as large as all adapters together
        factors = _peak_of_adapters(parameters, ranks, with_basis=True, dense=False)
        costs[AS_ADAPTER] = Cost(reading + read / _WRITING + singular, factors + mapped, mapped)
    return costs


def _dense_bytes(checkpoint: Checkpoint) -> int:
    return sum(info.nbytes for info in checkpoint.infos.values())


def _seconds(parameter: Parameter, tasks: int, ranks: Sequence[int], rates: Rates) -> float:
    """DC-Merge of one matrix: T truncated SVDs, two polar factors, the aligned deltas, and back."""
    m, n = parameter.shape
    small, large = min(m, n), max(m, n)
    r = min(small // tasks, max(ranks, default=small))
    if r == 0:
        return 0.0
    k = tasks * r
    if ranks:
        each = 4 * (m + n) * r * r * rates.product64 + 10 * r**3 * rates.eigen64
    else:
        few = small >= _LARGE_GRAM and 2 * (r + _BESIDE) <= small
        eigen = rates.eigen32_at_once if few else rates.eigen64_at_once
        each = eigen * small**3 + small * small * large / 2 * rates.product64 + small * large * r * rates.product32
        each += 6 * small * small * r * rates.product64 if few else small * large * r * rates.product64
    basis = _polar_seconds(m, k, rates) + _polar_seconds(n, k, rates)
    aligning = (tasks * k * r * (m + n + k) + m * n * k) * rates.product32
    return tasks * (each + _PER_MATRIX) + basis + aligning


def _polar_seconds(m: int, k: int, rates: Rates) -> float:
    single = k >= _LARGE_POLAR and m >= 2 * k
    eigen, product = (rates.eigen32, rates.product32) if single else (rates.eigen64, rates.product64)
    return eigen * k**3 + (3 * k**3 + 2 * m * k * k) * product


def _peak_of_average(parameters: Iterable[Parameter], tasks: int, *, in_rows: bool) -> int:
    """The deltas of the largest parameter with the base's and the result; ``in_rows`` of as many parts as are in work at once."""
    largest = max(p.numel for p in parameters)
    at_once = min(largest, (torch.get_num_threads() + 2) * PART_ENTRIES) if in_rows else largest
    return _PROCESS_BYTES + 4 * (2 * tasks + 3) * at_once


def _peak_of_adapters(
    parameters: Sequence[Parameter], ranks: Mapping[str, Sequence[int]], *, with_basis: bool, dense: bool = True
) -> int:
    """The largest product, written densely, with the factors of all adapters; DC-Merge remembers factors and bases."""
    largest = remembered = 0
    for parameter in parameters:
        together, sides = sum(ranks[parameter.name]), sum(parameter.shape)
        factors = 4 * together * sides
        largest = max(largest, 4 * 4 * parameter.numel * dense + (8 if with_basis else 2) * factors)
        remembered += 2 * factors + 8 * together * together if with_basis else 0
    return _PROCESS_BYTES + largest + min(remembered, MEMO_BYTES)


@lru_cache(maxsize=4)
def _measured(threads: int, device: str) -> Rates:
    draw = torch.Generator().manual_seed(0)
    X = torch.randn(512, 512, generator=draw).to(device)
    G32, G64 = X @ X.T, (X[:384].double() @ X[:384].double().T)
    Y = torch.randn(1 << 22, generator=draw)
    n32, n64 = len(G32) ** 3, len(G64) ** 3

    def at_once(G: torch.Tensor) -> float:
        return _timed(lambda: on_all_threads(lambda M: torch.linalg.eigh(M)[0].cpu(), [G] * threads)) / threads

    many32, many64 = at_once(G32) / n32, at_once(G64) / n64
    return Rates(
        byte=_timed(lambda: _pass_over(Y)) / Y.nbytes,
        product32=_timed(lambda: (X @ X).cpu()) / n32,
        product64=_timed(lambda: (X.double() @ X.double()).cpu()) / n32,
        # On a busy machine several threads on one matrix may be measured slower than one, which passes.
        eigen32=min(many32 * threads, _timed(lambda: torch.linalg.eigh(G32)[0].cpu()) / n32),
        eigen64=min(many64 * threads, _timed(lambda: torch.linalg.eigh(G64)[0].cpu()) / n64),
        eigen32_at_once=many32,
        eigen64_at_once=many64,
    )


def measured_rates() -> Rates:
    """This machine's rates, measured once in a process for each number of threads."""
    return _measured(torch.get_num_threads(), compute_device().type)


def _pass_over(Y: torch.Tensor) -> None:
    """What happens to every value of an expert: hashed, and a part at a time copied, examined, subtracted, summed."""
    hashlib.sha256(Y.numpy().data).digest()
    for part in Y.split(PART_ENTRIES):
        delta = part.clone() - part
        square_of(delta)
        total([delta, part.clone()])


def _timed(work: Callable[[], object]) -> float:
    """The shortest of three runs: the first one also prepares buffers and libraries."""
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        durations.append(time.perf_counter() - started)
    return min(durations)
