"""(k) The app in a real Chromium on eight whole ViT-B/32: how long pages take, what the server holds, and ρ to new accuracy."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from playwright.sync_api import Browser

from benchmarks import models
from benchmarks.browser import CHART, SETTLE, rests, row, until_whole
from benchmarks.measuring import Row, Timer, memory_of, processor_of
from benchmarks.pictures import bench_of
from dcmerge.evaluation.own_models import BenchSpecification, open_bench
from dcmerge.merging.merge import merge
from dcmerge.runtime.state_files import JOBS_VARIABLE
from dcmerge.sets.model_sets import ROOTS_VARIABLE, SAVED
from dcmerge.sets.saved_sets import FOLDER_VARIABLE as SETS_VARIABLE
from dcmerge.sets.saved_sets import SavedSet, save_set
from dcmerge.vectors.cache import Store
from dcmerge.vectors.cache.disk import FOLDER_VARIABLE as CACHE_VARIABLE
from dcmerge.vectors.task_vectors import TaskVectors
from tools.app_server import RunningApp, running_app
from tools.browser import chromium, new_page, open_page

ENCODER, TASKS, IMAGES, MOVES = "ViT-B-32", 8, 50, 6


class Seen(NamedTuple):
    """Seconds from a visitor's request to the first chart and to the whole page; then the server's processor time in them."""

    chart: float
    whole: float
    chart_processor: float
    whole_processor: float


def browser_at_size(folder: Path, runs: int, blocks: int | None) -> Iterator[Row]:
    """Pages with an empty cache and with a filled one; every visitor is a new one, the server is up."""
    base, experts = models.write_experts(folder / f"b32-{blocks or 12}", models.tower_shapes(ENCODER, blocks), TASKS)
    one = SavedSet("towers", str(base.resolve()), {task: str(path.resolve()) for task, path in experts.items()})
    said = f"{TASKS} experts, ViT-B/32 image tower, {blocks or 12} of 12 blocks"
    with chromium() as chrome, tempfile.TemporaryDirectory() as place:
        variables = {JOBS_VARIABLE: f"{place}/jobs", SETS_VARIABLE: f"{place}/sets"}
        variables[ROOTS_VARIABLE] = os.pathsep.join([str(folder.resolve()), place])
        variables["OMP_NUM_THREADS"] = variables["MKL_NUM_THREADS"] = str(torch.get_num_threads())
        os.environ[SETS_VARIABLE] = variables[SETS_VARIABLE]
        save_set(one)
        with _server(variables, f"{place}/idle") as app:
            yield Row("k", "a server that nobody has visited yet", target="< 0.7 GB", remark=_held(app))
        for page in ("Spectra", "Alignment"):
            yield from _page(chrome, variables, f"{place}/{page}", page, runs, said)
        yield from _moves(chrome, variables, Path(place), one, said)


def _page(chrome: Browser, variables: Mapping[str, str], cache: str, page: str, runs: int, said: str) -> Iterator[Row]:
    """One page, first with an empty cache, then with what that left, each time of a server that has just started."""
    seen, held = [], []
    for _ in range(1 + runs):
        with _server(variables, cache) as app:
            seen.append(_seen(chrome, app, page))
            held.append(_held(app))
    for which, found, target, told in (("empty", seen[:1], "< 10 s", held[0]), ("filled", seen[1:], "< 5 s", held[-1])):
        chart, whole, *processor = (statistics.median(values) for values in zip(*found, strict=True))
        took = " and ".join(f"{seconds:.1f} s" for seconds in processor)
        remark = f"whole after {whole:.1f} s; the server computed {took} for that; {told}"
        yield Row("k", f"{said}: {page}, first chart, {which} cache", None, chart, None, target, len(found), remark)


@contextmanager
def _server(variables: Mapping[str, str], cache: str) -> Iterator[RunningApp]:
    with running_app(variables={**variables, CACHE_VARIABLE: cache}) as app:
        time.sleep(15)  # what it prepares for its first visitor is ready
        yield app


def _seen(chrome: Browser, app: RunningApp, page: str) -> Seen:
    began, processor = time.perf_counter(), processor_of(app.process.pid)
    tab = new_page(chrome, viewport={"width": 1280, "height": 900})
    tab.goto(f"{app.url}/{page}?set={SAVED}towers&smoothing=linear&rho=5", wait_until="domcontentloaded")
    tab.wait_for_selector(CHART, timeout=180_000)
    chart, to_chart = time.perf_counter() - began, processor_of(app.process.pid) - processor
    until_whole(tab, 900)
    whole = time.perf_counter() - began - SETTLE
    tab.context.close()
    return Seen(chart, whole, to_chart, processor_of(app.process.pid) - processor)


def _held(app: RunningApp) -> str:
    now, most = memory_of(app.process.pid)
    return f"the server holds {now / 1e9:.2f} GB, at most {most / 1e9:.2f}"


def _moves(chrome: Browser, variables: Mapping[str, str], place: Path, one: SavedSet, said: str) -> Iterator[Row]:
    """ρ moved on the Merge page until the new accuracy is there, and what that consists of."""
    assert one.base is not None
    vectors = TaskVectors.open(one.base, one.experts)
    cache = f"{place}/Alignment"  # which has everything that DC-Merge needs
    vectors.store = Store(cache)
    given = bench_of(vectors, place / "pictures", ENCODER, IMAGES)
    save_set(replace(one, name="towers with images", bench=given))
    with _server(variables, cache) as app:
        tab = new_page(chrome, viewport={"width": 1280, "height": 900})
        began = time.perf_counter()
        open_page(tab, f"{app.url}/Merge?set={SAVED}towers with images&smoothing=linear&rho=5", timeout=900)
        came = time.perf_counter() - began
        waits = rests(tab, tab.get_by_role("slider", name="ρ"), MOVES, timeout=300)
        told = f"{_parts(vectors, given)}; the page came in {came:.0f} s; {_held(app)}"
        tab.context.close()
    what = f"{said}: ρ moved on the Merge page to the new accuracy, {IMAGES} images a task"
    yield row(what, waits, "", "k", told)


def _parts(vectors: TaskVectors, given: Mapping[str, Any]) -> str:
    """Median seconds of what a move consists of, one after the other in this process."""
    bench, timer = open_bench(vectors, BenchSpecification.of(given)), Timer(3)
    rhos = iter(range(2, 99))
    found: dict[str, Any] = {}

    def merged() -> None:
        found["merged"] = merge(vectors, "dc_merge", smoothing="linear", rho=next(rhos) / 2)

    def added() -> None:
        found["model"] = found["merged"].model(bench, 1.0)

    def evaluated() -> None:
        bench.evaluate(found["model"], f"rho {next(rhos)}", split="val", limit=IMAGES)

    for part in (merged, added, evaluated):  # what is read and decoded once
        part()
    timer.alternate(merging=merged, adding=added, evaluating=evaluated)
    return "of that " + ", ".join(f"{name} {timer.median(name):.2f} s" for name in ("merging", "adding", "evaluating"))
