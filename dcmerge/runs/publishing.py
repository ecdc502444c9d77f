"""Runs into other people's trackers, through the trackers' own libraries, which are extras."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any

from dcmerge.errors import InputError
from dcmerge.runs.fields import made_at
from dcmerge.runs.run import Run

#: The experiment or project that runs go to unless another one is named.
EXPERIMENT = "dcmerge"
#: A run there carries its id here, so that nothing is sent twice.
_ID = "dcmerge.id"
#: What a tracker takes in a name, and how much of a value.
_STRANGE, _LONGEST = re.compile(r"[^\w\-. /]", re.ASCII), 500


def publish(runs: Sequence[Run], to: str, *, address: str | None = None, experiment: str = EXPERIMENT) -> int:
    """Send runs to "mlflow" or "trackio"; how many were not there before.

    ``address``: MLflow's tracking URI, or the Hugging Face Space of Trackio; by default what the library is set to. Raises
    InputError, in one sentence, where the library is missing or refuses.
    """
    if to not in TRACKERS:
        raise InputError(f"publish: expected one of {', '.join(TRACKERS)}, got {to!r}")
    library = _library(to)
    try:
        return TRACKERS[to](library, runs, address, experiment)
    except InputError:
        raise
    except Exception as error:  # a stranger's library: any of its errors is told in one line
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"publish: {to} did not take the runs ({type(error).__name__}: {reason:.300})") from None


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"publish: expected the package {name} to be installed (pip install dcmerge[{name}]), got none"
        ) from None


def params(run: Run) -> dict[str, str]:
    """What decided the run, as texts."""
    about = {"method": run.method, "variant": run.variant, "set": run.set.name, "set_hash": run.set.hash, "kind": run.kind}
    about |= {"group": run.group, "split": run.split, "images_a_task": run.evaluation.images, "alpha_from": run.alpha_origin}
    values = {f"parameter.{name}": value if isinstance(value, str) else json.dumps(value) for name, value in run.values.items()}
    alpha = {} if run.alpha is None else {"alpha": f"{run.alpha:g}"}
    return {_name(key): str(value)[:_LONGEST] for key, value in {**about, "tried": run.tried, **alpha, **values}.items() if value}


def metrics(run: Run) -> dict[str, float]:
    """What was measured; accuracies are shares."""
    measured = run.evaluation
    low, high = measured.mean_interval
    found: dict[str, float | None] = {"accuracy": measured.mean, "accuracy_low": low, "accuracy_high": high}
    found |= {"normalised": measured.mean_normalised, "worst": measured.worst.accuracy, "seconds": run.seconds}
    found |= {f"accuracy/{task}": value for task, value in run.accuracies.items()}
    return {_name(key): float(value) for key, value in found.items() if value is not None}


def title(run: Run) -> str:
    return run.name or f"{run.variant or run.method} {run.id}"


def _name(text: str) -> str:
    return _STRANGE.sub("_", text)[:200]


def _to_mlflow(mlflow: Any, runs: Sequence[Run], address: str | None, experiment: str) -> int:
    """Each run with its own time, parameters, metrics and note; MLflow's own state in this process stays as it is."""
    entities = importlib.import_module("mlflow.entities")
    client = mlflow.MlflowClient(tracking_uri=address)
    known = client.get_experiment_by_name(experiment)
    place = known.experiment_id if known else client.create_experiment(experiment)
    sent = 0
    for run in runs:
        if client.search_runs([place], f"tags.`{_ID}` = '{run.id}'", max_results=1):
            continue
        made = made_at(run)
        at = int(made.timestamp() * 1000) if made else 0
        tags = {_ID: run.id, "mlflow.note.content": run.note, "starred": str(run.starred)}
        created = client.create_run(place, start_time=at, run_name=title(run), tags=tags).info.run_id
        client.log_batch(
            created,
            metrics=[entities.Metric(name, value, at, 0) for name, value in metrics(run).items()],
            params=[entities.Param(name, value) for name, value in params(run).items()],
        )
        client.set_terminated(created, "FINISHED", end_time=at + int(1000 * (run.seconds or 0)))
        sent += 1
    return sent


def _known_to_trackio(trackio: Any, project: str) -> set[Any]:
    """Ids of the runs that a local project holds; none where there is no such project yet."""
    try:
        return {(run.config or {}).get(_ID) for run in trackio.Api().runs(project)}
    except ValueError:
        return set()


def _to_trackio(trackio: Any, runs: Sequence[Run], address: str | None, experiment: str) -> int:
    """What is in a local project is not sent again; a Space cannot be asked, and gets a second run of that name."""
    project = _name(experiment)
    known = set() if address else _known_to_trackio(trackio, project)
    new = [run for run in runs if run.id not in known]
    with redirect_stdout(sys.stderr):  # it talks, and stdout may be a document
        for run in new:
            about = {**params(run), "note": run.note, "starred": run.starred, _ID: run.id}
            quiet = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
            trackio.init(project=project, name=_name(title(run)), space_id=address, config=about, **quiet)
            trackio.log(metrics(run))
            trackio.finish()
    return len(new)


TRACKERS: dict[str, Callable[[Any, Sequence[Run], str | None, str], int]] = {"mlflow": _to_mlflow, "trackio": _to_trackio}
