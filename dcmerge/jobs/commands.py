"""The command that does a job's work again, on another machine too: what its specification says, in options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pprint import pformat
from typing import Any

from dcmerge.checkpoints.regrouped import STORED
from dcmerge.errors import InputError
from dcmerge.evaluation.own_models import BenchSpecification
from dcmerge.jobs.record import Job
from dcmerge.jobs.specification import Compare, Damage, Evaluate, Sweep, Tells, to_data
from dcmerge.merging.recipe import BASE
from dcmerge.merging.snippets import exact, fit_options, input_options, mix_options, option_text, set_options
from dcmerge.sets.model_sets import SAVED
from dcmerge.sets.saved_sets import SavedSet, saved_sets
from dcmerge.studies.sweep import Plan as SweepPlan
from dcmerge.studies.tells import Plan as TellsPlan
from dcmerge.vectors.mix import Mix
from dcmerge.zoo import ZOOS

Options = Iterator[tuple[str, str | None]]
#: More images than any split has: where a limit has a default, this says that there is none.
_ALL = str(10**9)


def repeated(job: Job) -> dict[str, str]:
    """How to do the work again, by title: a command, or Python where no command says all of it."""
    try:
        text = command(job)
    except InputError:
        submitted = pformat(to_data(job.specification), sort_dicts=False)
        return {"Python, on this machine": f"from dcmerge import jobs\n\njobs.submit(\n{submitted}\n)"}
    where = "" if job.specification.set in ZOOS else " (its paths are those of the machine that measured)"
    return {f"command{where}": text}


def command(job: Job) -> str:
    """The command line, each option in a line of its own, quoted for a POSIX shell.

    Raises InputError where the command has no option for something, and for a set that is remembered no more.
    """
    spec = job.specification
    for kind, (name, options) in _COMMANDS.items():
        if isinstance(spec, kind):
            plugins = (("plugin", path) for path, _ in job.plugins)
            lines = [option_text(*one) for one in (*_of_set(spec.set), *plugins, *options(spec))]
            return " \\\n  ".join([f"python -m dcmerge {name}", *lines])
    raise InputError(f"job: expected one that measures, got {spec.kind}")


def _of_set(name: str) -> Options:
    if name in ZOOS:
        yield "zoo", name
        return
    saved = saved_sets().get(name.removeprefix(SAVED)) if name.startswith(SAVED) else None
    if saved is None:
        raise InputError(f"set: expected a zoo or a remembered set, got {name}")
    yield from input_options({**({BASE: saved.base} if saved.base else {}), **saved.experts})
    if saved.qkv != STORED:
        yield "qkv", saved.qkv
    yield from fit_options(saved.fit)
    yield from _of_bench(saved)


def _of_bench(saved: SavedSet) -> Options:
    if not saved.bench:
        return
    bench = BenchSpecification.of(saved.bench)
    yield from ((name, value) for name in ("encoder", "data", "heads", "weights") if (value := getattr(bench, name)))
    yield from (("dataset", f"{task}={name}") for task, name in bench.datasets.items())
    yield "split-rule", bench.split_rule
    if bench.download:
        yield "download", None


def _of_images(limit: int | None, val_limit: int | None) -> Options:
    """Without the second one the commands take the first for validation images too."""
    if limit is not None:
        yield "limit", str(limit)
    if val_limit != limit:
        yield "val-limit", _ALL if val_limit is None else str(val_limit)


def _of_mix(data: Mapping[str, Any]) -> Options:
    yield from mix_options(Mix.from_data(data))


def _compare(spec: Compare) -> Options:
    if spec.split != "test":
        raise InputError(f"split: the command compares on test images, got {spec.split}")
    slugs = {name: choice.slug for name, choice in zip(spec.parameters, spec.methods, strict=True)}
    yield "methods", ",".join(slugs)
    for name, values in spec.parameters.items():
        yield from set_options(slugs[name], values, name)
    yield from _of_mix(spec.mix)
    yield from _of_images(spec.limit, spec.val_limit)
    if spec.diagnosed:
        yield "diagnose", None


def _evaluate(spec: Evaluate) -> Options:
    yield "method", spec.method.slug
    yield from set_options(spec.method.slug, spec.method.parameters)
    if spec.scale is not None:
        yield "scale", exact(spec.scale)
    yield from _of_mix(spec.mix)
    yield "split", spec.split
    yield from _of_images(spec.limit, spec.val_limit)


def _sweep(spec: Sweep) -> Options:
    plan, usual = spec.plan, SweepPlan("", ())
    yield "method", plan.slug
    yield from set_options(plan.slug, plan.parameters)
    yield from (("over", text) for text in plan.over)
    yield from _of_mix(plan.mix)
    yield "sampler", plan.sampler
    yield "trials", str(plan.trials)
    yield "objective", ",".join(plan.objectives)
    if plan.scale is not None:
        yield "scale", exact(plan.scale)
    yield from _of_images(plan.test_limit, plan.limit)
    yield from ((option, None) for option, asked in (("no-early-stop", not plan.early), ("no-test", not plan.test)) if asked)
    if plan.seed != usual.seed:
        yield "seed", str(plan.seed)


def _damage(spec: Damage) -> Options:
    yield "method", spec.plan.slug
    yield from set_options(spec.plan.slug, spec.plan.parameters)
    if spec.scale is not None:
        yield "scale", exact(spec.scale)
    yield "changes", ",".join(spec.plan.changes)
    yield "by", spec.plan.by
    yield "limit", _ALL if spec.plan.limit is None else str(spec.plan.limit)


def _tells(spec: Tells) -> Options:
    plan, usual = spec.plan, TellsPlan()
    yield "merges", str(plan.merges)
    if plan.methods:
        yield "methods", ",".join(plan.methods)
    if plan.factors != usual.factors:
        yield "factors", ",".join(map(exact, plan.factors))
    yield "limit", str(plan.limit)
    yield "unlabeled", str(plan.unlabeled)
    if plan.subsets:
        yield "subsets", None
    if plan.seed != usual.seed:
        yield "seed", str(plan.seed)


#: Kind of job -> the command's name, and the options that say what is done.
_COMMANDS: dict[type, tuple[str, Callable[[Any], Options]]] = {
    Compare: ("compare", _compare),
    Evaluate: ("evaluate", _evaluate),
    Sweep: ("sweep", _sweep),
    Damage: ("damage", _damage),
    Tells: ("tells", _tells),
}
