"""``--engine``: the points of a sweep, or the rows of a comparison, on the machines of a Ray cluster."""

from __future__ import annotations

import argparse
from functools import partial

from dcmerge.cli.options import number, opened_bench
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.methods import load_plugin
from dcmerge.runtime.engines import LOCAL, RAY, Engine, Ray, check_ray
from dcmerge.studies.elsewhere import Opener


def add_engine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on many machines")
    group.add_argument("--engine", choices=(RAY,), help="hand the work out on a Ray cluster (pip install dcmerge[ray])")
    group.add_argument(
        "--address", metavar="HOST:PORT", help="the cluster's head, ray://HOST:PORT or auto (default: a cluster on this machine)"
    )
    group.add_argument("--cpus", type=number, metavar="N", help="processors for each piece of work (default 1)")
    group.add_argument("--gpus", type=number, metavar="N", help="the same of graphics cards (default 0)")


def engine_of(args: argparse.Namespace) -> tuple[Engine | None, Opener | None]:
    """The cluster, and what opens the models on its nodes; (None, None) for this process alone. Raises InputError."""
    given = {name: value for name in ("address", "cpus", "gpus") if (value := getattr(args, name)) is not None}
    if args.engine is None:
        if given:
            raise InputError(f"{next(iter(given))}: expected --engine {RAY} beside it, got none")
        return None, None
    if args.background:
        raise InputError(f"expected --engine {RAY} without --background, got both: a job runs on one machine")
    cpus, gpus = given.get("cpus", 1), given.get("gpus", 0)
    if cpus <= 0 or gpus < 0:
        raise InputError(f"cpus: expected more than 0, and gpus at least 0, got {cpus:g} and {gpus:g}")
    check_ray()
    return Ray(given.get("address", LOCAL), cpus, gpus), partial(_opened_there, args)


def _opened_there(args: argparse.Namespace) -> Bench:
    """On a node: the same options open the same models, whose files lie under the same paths."""
    for file in args.plugin:
        load_plugin(file)
    return opened_bench(args, None)
