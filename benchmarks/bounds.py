"""Where the time goes: the operations that bound a merge, as shares of all its operations' own time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import models
from benchmarks.cases import TASKS, adapter_layer, fresh
from benchmarks.measuring import Row, Timer
from dcmerge.methods.dc_merge import dc_merge
from dcmerge.vectors.layers import Layer, layer_of

#: What torch's names of operations mean here; the rest is summed up.
_MEANING = {
    "aten::_linalg_eigh": "eigenvectors",
    "aten::_linalg_svd": "small SVDs",
    "aten::linalg_qr": "QR",
    "aten::mm": "matrix products",
    "aten::bmm": "matrix products",
    "aten::addmm": "matrix products",
    "aten::copy_": "copies and casts",
    "aten::topk": "largest entries",
}


def bounds(folder: Path, runs: int) -> Iterator[Row]:
    """(a) cold, (c) warm and (d) LoRA of one matrix, taken apart."""
    vectors = models.opened(folder / "b32-1", models.tower_shapes("ViT-B-32", 1), TASKS)
    layer = layer_of(fresh(vectors), "visual.transformer.resblocks.0.mlp.c_proj.weight")
    adapted = adapter_layer(folder, 768)
    cold, adapters = _from_nothing(layer), _from_nothing(adapted)
    yield _taken_apart("a", f"{tuple(layer.shape)}, {TASKS} tasks, cold", cold, runs)
    yield _taken_apart("c", f"{tuple(layer.shape)}, {TASKS} tasks, after ρ changed", _warm(layer), runs)
    yield _last_product(layer, runs)
    yield _taken_apart("d", f"LoRA r=16, {TASKS} adapters of {tuple(adapted.shape)}", adapters, runs)


def _from_nothing(layer: Layer) -> Callable[[], object]:
    return lambda: dc_merge(Layer(fresh(layer.vectors), layer.parameter), smoothing="linear", rho=2.0)


def _warm(layer: Layer) -> Callable[[], object]:
    dc_merge(layer, smoothing="linear", rho=2.0)
    return lambda: dc_merge(layer, smoothing="linear", rho=3.0)


def _last_product(layer: Layer, runs: int) -> Row:
    """What no fast path can leave out where the dense matrix is asked for: (m, k) times (k, n)."""
    timer, basis = Timer(runs), layer.cover_basis(layer.default_rank())
    timer.alternate(ours=lambda: basis.U @ basis.V.T)
    return Row("c", f"{tuple(basis.U.shape)} times {tuple(basis.V.T.shape)} alone", None, timer.median("ours"), None, "", runs)


def _taken_apart(case: str, what: str, merge: Callable[[], object], runs: int) -> Row:
    timer, threads = Timer(runs), torch.get_num_threads()
    timer.alternate(ours=merge)
    torch.set_num_threads(1)  # with more, eigenvectors are found on threads that the profiler does not follow
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        merge()
    torch.set_num_threads(threads)
    parts: Counter[str] = Counter()
    for event in seen.key_averages():
        parts[_MEANING.get(event.key, "all else")] += event.self_cpu_time_total
    whole = parts.total()
    shares = ", ".join(f"{name} {100 * share / whole:.0f} %" for name, share in parts.most_common())
    return Row(case, what, None, timer.median("ours"), None, "", runs, shares)
