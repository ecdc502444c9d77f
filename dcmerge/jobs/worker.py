"""``python -m dcmerge.jobs.worker FOLDER``: one job in a process of its own, every finished step on disk."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from dcmerge.comparison import Row, compare, fixed_scale
from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import choose_scale
from dcmerge.jobs.journal import CANCELLED, DONE, FAILED, RUNNING, JobFolder
from dcmerge.jobs.rows import row_data, row_from
from dcmerge.jobs.specification import Specification
from dcmerge.methods import method
from dcmerge.model_sets import ModelSet, open_set_by_name, roots
from dcmerge.recipe import merge

#: Progress is written at most so often (seconds).
_BETWEEN_WORDS = 1.0


def main(path: str) -> int:
    """Run the job of this folder and write how it ended; 1 where it failed."""
    folder = JobFolder(Path(path))
    with folder.alive() as mine:
        if not mine:
            return 1
        folder.state(RUNNING)
        try:
            work(folder)
        except Cancelled:
            folder.state(CANCELLED)
        except InputError as error:
            folder.state(FAILED, error=str(error))
            return 1
        except Exception as error:
            traceback.print_exc()
            folder.state(FAILED, error=f"failed unexpectedly ({type(error).__name__}); the job's log shows the details")
            return 1
        else:
            folder.state(DONE)
    return 0


def work(folder: JobFolder) -> None:
    """Open the set and do what the specification says."""
    asked, tell = folder.description()["specification"], _progress(folder)
    models = open_set_by_name(asked["set"], roots(), progress=lambda share, text: tell(0.0, f"opening: {text}"))
    {"compare": _compare, "merge": _merge}[asked["kind"]](folder, asked, models, tell)


def _progress(folder: JobFolder) -> Callable[[float, str], None]:
    last = 0.0

    def tell(share: float, text: str) -> None:
        nonlocal last
        if folder.is_asked_to_stop():
            raise Cancelled
        if time.monotonic() - last > _BETWEEN_WORDS:
            last = time.monotonic()
            folder.progress(share, text)

    return tell


def _compare(folder: JobFolder, asked: Specification, models: ModelSet, tell: Callable[[float, str], None]) -> None:
    """One step a row; rows that are there are taken over, unless their method failed."""
    if models.bench is None:
        raise InputError(f"expected a set with images to compare on, got {models.title}")
    known = {name: row for name, row in ((n, row_from(data)) for n, data in folder.steps().items()) if not row.error}

    def keep(row: Row) -> None:
        if row.name not in known:
            print(f"{row.name}: {row.error or f'{100 * row.evaluation.mean:.1f} %'}", flush=True)
            folder.finish_step(row.name, row_data(row))

    parameters = {one["slug"]: one["parameters"] for one in asked["methods"]}
    compare(
        models.bench, list(parameters), parameters, split=asked["split"], limit=asked["limit"], val_limit=asked["val_limit"],
        diagnosed=asked["diagnosed"], known=known, on_row=keep, progress=tell, cancelled=folder.is_asked_to_stop,
    )  # fmt: skip


def _merge(folder: JobFolder, asked: Specification, models: ModelSet, tell: Callable[[float, str], None]) -> None:
    """Merge, choose α where asked for, and write the file, which appears when it is complete."""
    chosen, stop = method(asked["method"]), folder.is_asked_to_stop
    merged = merge(models.vectors, chosen.slug, bench=models.bench, progress=lambda s, t: tell(0.6 * s, t), cancelled=stop,
                   **asked["parameters"])  # fmt: skip
    scale, origin = asked["scale"], "given"
    if scale == "auto" and not chosen.fixed_scale:
        if models.bench is None:
            raise InputError(f"scale: expected a number, as {models.title} has no images to choose one on, got auto")
        found = choose_scale(models.bench, merged.deltas, progress=lambda s, t: tell(0.6 + 0.3 * s, t), cancelled=stop)
        scale, origin = found.value, found.origin
    elif scale in (None, "auto"):
        fixed = fixed_scale(chosen.slug)
        scale, origin = chosen.usual_scale, fixed.origin if fixed else "the method's usual α"
    tell(0.95, "writing")
    delta_only = asked["delta_only"] or models.vectors.base is None
    merged.save(asked["out"], scale=scale, scale_origin=origin, delta_only=delta_only, task=asked["task"])
    folder.finish_step("merge", {"out": asked["out"], "scale": scale, "scale_origin": origin})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
