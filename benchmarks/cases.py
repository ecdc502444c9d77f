"""What is measured without a browser: full fine-tuning, one layer, LoRA, memory and growth."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import models, plain
from benchmarks.measuring import Row, Timer, command, fitted_exponent, relative_error
from benchmarks.places import places
from benchmarks.routes import routes
from dcmerge.checkpoints import dense, scaled_sum
from dcmerge.merging.merge import merge
from dcmerge.methods.dc_merge import dc_merge
from dcmerge.vectors.cache import Memo, Store
from dcmerge.vectors.layers import Layer, layer_of
from dcmerge.vectors.task_vectors import TaskVectors

TASKS = models.TASKS


def fresh(vectors: TaskVectors, store: Store | None = None) -> TaskVectors:
    """The same set with nothing remembered."""
    vectors.memo, vectors.store = Memo(), store
    return vectors


def full(folder: Path, runs: int, blocks: int) -> Iterator[Row]:
    """(a) cold, (a') a second start with the cache on disk, (b) after ρ, (b') after α changed: eight ViT-B/32-sized experts."""
    shapes = models.tower_shapes("ViT-B-32", blocks)
    vectors = models.opened(folder / f"b32-{blocks}", shapes, TASKS)
    base = {name: vectors.base_tensor(name) for name in shapes}
    experts = [{name: e.read(name) for name in shapes} for e in vectors.experts.values()]
    store = Store(folder / "cache", 32 << 30)
    merge(fresh(vectors, store), "dc_merge", smoothing="linear")
    held = merge(fresh(vectors, store), "dc_merge", smoothing="linear")
    warm, ratios, scales = held.vectors.memo, iter(range(2, 2 + 2 * runs)), iter(range(2, 2 + 2 * runs))

    def after_rho() -> dict[str, Tensor]:
        vectors.memo, vectors.store = warm, store
        return merge(vectors, "dc_merge", smoothing="linear", rho=1 + next(ratios) / 10).deltas

    def after_alpha() -> dict[str, Tensor]:
        scale = next(scales) / 10
        return {name: scaled_sum(base[name], delta, scale) for name, delta in held.deltas.items()}

    timer, how = Timer(runs), {"smoothing": "linear", "rho": 5.0, "keep": plain.KEEP}
    results = timer.alternate(
        plain=lambda: plain.whole_model(base, experts, 5.0),
        cold=lambda: merge(fresh(vectors), "dc_merge", **how).deltas,
        second=lambda: merge(fresh(vectors, store), "dc_merge", **how).deltas,
        warm=after_rho,
        alpha=after_alpha,
    )
    error = max(relative_error(results["cold"][name], value) for name, value in results["plain"].items())
    size = f"{TASKS} experts, ViT-B/32 image tower, {blocks} of 12 blocks"
    said = {
        "cold": ("a", "cold", "5 x"),
        "second": ("a'", "second start, factors from the cache on disk", ""),
        "warm": ("b", "whole model after ρ changed", "60 x"),
        "alpha": ("b'", "base + α · merged after α changed", "200 x"),
    }
    for name, (case, what, target) in said.items():
        yield Row(
            case, f"{size}: {what}", timer.median("plain"), timer.median(name), error if name == "cold" else None, target, runs
        )


def one_layer(folder: Path, runs: int) -> Iterator[Row]:
    """(c) one matrix after ρ changed, against its plain merge."""
    vectors = models.opened(folder / "b32-1", models.tower_shapes("ViT-B-32", 1), TASKS)
    for part, target in (
        ("mlp.c_proj.weight", "100 x"),
        ("mlp.c_fc.weight", "40 x"),
        ("attn.in_proj_weight", "40 x"),
        ("attn.out_proj.weight", "40 x"),
    ):
        layer = layer_of(fresh(vectors), f"visual.transformer.resblocks.0.{part}")
        deltas = list(layer.dense_deltas())
        what = f"one layer {tuple(layer.shape)}, {TASKS} tasks, after ρ changed"
        yield compared("c", what, target, runs, deltas, layer, warm=True)


def compared(case: str, what: str, target: str, runs: int, deltas: list[Tensor], layer: Layer, *, warm: bool) -> Row:
    """One matrix, plain against the library: with its factors there (``warm``: only ρ is new) or not."""
    padded, rank = layer.vectors.kind == "full", layer.default_rank()
    if warm:
        dc_merge(layer, smoothing="linear", rho=3.0)
    rhos = iter(torch.linspace(1.5, 4, 64).tolist())

    def ours() -> Tensor:
        if not warm:
            fresh(layer.vectors)
        return dc_merge(layer, smoothing="linear", rho=next(rhos))

    timer = Timer(runs)
    timer.alternate(plain=lambda: plain.dc_merge(deltas, rank, 2.0, padded), ours=ours)
    found = dense(dc_merge(layer, smoothing="linear", rho=2.0))
    error = relative_error(found, plain.dc_merge(deltas, rank, 2.0, padded))
    return Row(case, what, timer.median("plain"), timer.median("ours"), error, target, runs)


def lora(folder: Path, runs: int) -> Iterator[Row]:
    """(d) adapters of rank 16: the merged delta as factors."""
    for width, target in ((768, "100 x"), (1536, "500 x")):
        layer = adapter_layer(folder, width)
        deltas = [delta.dense() for delta in layer.deltas()]
        what = f"LoRA r=16, {TASKS} adapters of one ({4 * width}, {width}) matrix"
        yield compared("d", what, target, runs, deltas, layer, warm=False)
    layer, timer = adapter_layer(folder, 4096, 4096), Timer(runs)
    timer.alternate(ours=lambda: dc_merge(Layer(fresh(layer.vectors), layer.parameter), smoothing="linear", rho=2.0))
    yield Row(
        "d",
        f"LoRA r=16, {TASKS} adapters of one (4096, 4096) matrix",
        None,
        timer.median("ours"),
        None,
        "< 0.5 s",
        runs,
        "plain not run",
    )


def adapter_layer(folder: Path, width: int, wide: int | None = None) -> Layer:
    """One adapted matrix of eight PEFT adapters on disk."""
    wide = wide or 4 * width
    experts = {}
    for task, delta in enumerate(models.adapters(width, wide, 16, TASKS)):
        path = folder / f"lora-{width}" / f"task{task}"
        models.write_adapter(path, {"layer": delta}, delta.rank)
        experts[f"task{task}"] = path
    vectors = fresh(TaskVectors.open(None, experts))
    return layer_of(vectors, next(iter(vectors.parameters)))


def memory(folder: Path, count: int, blocks: int | None) -> Iterator[Row]:
    """(e) peak resident memory of merging ``count`` ViT-L/14-sized experts into a file, each in a process of its own."""
    shapes = models.tower_shapes("ViT-L-14", blocks)
    base, experts = models.write_experts(folder / f"l14-{blocks or 24}", shapes, count)
    held = sum(path.stat().st_size for path in [base, *experts.values()])
    for slug in ("tsv_m", "dc_merge"):
        command = [sys.executable, "-m", "benchmarks.peak", slug, str(base.parent), str(count)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        yield Row(
            "e",
            f"{slug} of {count} ViT-L/14 image towers ({blocks or 24} of 24 blocks, {held / 2**30:.1f} GiB of files)",
            None,
            found["seconds"],
            None,
            "< 3 GiB",
            1,
            f"peak {found['peak'] / 2**30:.2f} GiB resident, predicted {found['predicted'] / 2**30:.2f}",
        )


def adapters(folder: Path, runs: int) -> Iterator[Row]:
    """(h) eight adapters of a language model of 7 billion parameters: inspected, and merged to an adapter, by command."""
    for dtype in (torch.bfloat16, torch.float32):
        place = folder / f"lora-7b-{dtype}".replace("torch.", "")
        models.write_adapters_of_7b(place, TASKS, dtype=dtype)
        experts = [f"--expert=task{t}={place / f'task{t}'}" for t in range(TASKS)]
        threads = f"--threads={torch.get_num_threads()}"
        merging = ["merge", threads, *experts, "--method=dc_merge", "--as-adapter", "--force", f"--out={place / 'merged'}"]
        kind = str(dtype).removeprefix("torch.")
        size = sum(file.stat().st_size for file in place.glob("task*/*.safetensors")) / 2**30
        said = f"{TASKS} adapters r=16 of a 7B language model (32 layers, 7 targets), {kind}, {size:.1f} GiB"
        for what, words, target in (
            ("inspect", ["inspect", threads, *experts], "< 5 s"),
            ("merge by DC-Merge to an adapter", merging, "< 60 s, < 4 GiB"),
        ):
            seconds, peaks, _ = zip(*(command(*words) for _ in range(runs)), strict=True)
            all_runs = ", ".join(f"{s:.1f}" for s in seconds)
            remark = f"best of {all_runs} s; peak {max(peaks) / 2**30:.2f} GiB resident"
            yield Row("h", f"{said}: {what}", None, min(seconds), None, target, runs, remark)


def growth(folder: Path, runs: int) -> Iterator[Row]:
    """(g) cold and warm seconds of one matrix over the number of tasks and over the width, with fitted exponents."""
    by_tasks, by_width = (2, 4, 8, 16, 32), (256, 512, 1024, 2048)
    over_tasks = ("tasks at 768 x 768", by_tasks, lambda n: (n, 768))
    over_width = ("width at 8 tasks", by_width, lambda n: (8, n))
    for what, sizes, shape in (over_tasks, over_width):
        seconds: dict[str, list[float]] = {"cold": [], "warm": []}
        for size in sizes:
            count, width = shape(size)
            cold, warm = _cold_and_warm(folder, runs, count, width)
            seconds["cold"].append(cold)
            seconds["warm"].append(warm)
        for kind, found in seconds.items():
            listed = ", ".join(f"{n}: {s:.3g} s" for n, s in zip(sizes, found, strict=True))
            exponent = fitted_exponent(list(map(float, sizes)), found)
            yield Row("g", f"growth with {what}, {kind}", None, None, None, "", runs, f"exponent {exponent:.2f} ({listed})")


def _cold_and_warm(folder: Path, runs: int, count: int, width: int) -> tuple[float, float]:
    vectors = models.opened(folder / f"square-{width}", {"weight": (width, width)}, count)
    layer, rhos, timer = layer_of(vectors, "weight"), iter(torch.linspace(1.5, 4, 64).tolist()), Timer(runs)

    def cold() -> object:
        fresh(vectors)
        return dc_merge(layer, smoothing="linear", rho=next(rhos))

    timer.alternate(cold=cold, warm=lambda: dc_merge(layer, smoothing="linear", rho=next(rhos)))
    return timer.median("cold"), timer.median("warm")


CASES: dict[str, Callable[..., Iterator[Row]]] = {
    "full": full,
    "layer": one_layer,
    "lora": lora,
    "adapters": adapters,
    "memory": memory,
    "growth": growth,
    "svd": routes,
    "places": places,
}
