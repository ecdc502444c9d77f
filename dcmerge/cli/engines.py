"""``--engine``: points of a sweep, rows of a comparison or layers of a merge on a Ray cluster; ``--workers``: layers, here."""

from __future__ import annotations

import argparse
from functools import partial

from dcmerge.cli.options import number, opened_bench, whole_number
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


def add_workers(parser: argparse.ArgumentParser) -> None:
    """``--workers`` and ``--engine``, of one merge."""
    parser.add_argument(
        "--workers",
        type=whole_number(1, 64),
        default=1,
        metavar="N",
        help="processes that share the weights of whole models (default 1); each takes its part of the threads",
    )
    add_engine(parser)


def workers_of(args: argparse.Namespace) -> int | Ray:
    """How many processes merge here, or the cluster that does. Raises InputError for both at once."""
    if args.engine and args.workers > 1:
        raise InputError(f"workers: expected --workers or --engine {RAY}, got both; the cluster's size and --cpus say how many")
    return _cluster_of(args) or args.workers


def engine_of(args: argparse.Namespace) -> tuple[Engine | None, Opener | None]:
    """The cluster, and what opens the models on its nodes; (None, None) for this process alone. Raises InputError."""
    cluster = _cluster_of(args)
    return (cluster, partial(_opened_there, args)) if cluster else (None, None)


def _cluster_of(args: argparse.Namespace) -> Ray | None:
    given = {name: value for name in ("address", "cpus", "gpus") if (value := getattr(args, name)) is not None}
    if args.engine is None:
        if given:
            raise InputError(f"{next(iter(given))}: expected --engine {RAY} beside it, got none")
        return None
    if getattr(args, "background", False):
        raise InputError(f"expected --engine {RAY} without --background, got both: a job runs on one machine")
    cpus, gpus = given.get("cpus", 1), given.get("gpus", 0)
    if cpus <= 0 or gpus < 0:
        raise InputError(f"cpus: expected more than 0, and gpus at least 0, got {cpus:g} and {gpus:g}")
    check_ray()
    return Ray(given.get("address", LOCAL), cpus, gpus)


def _opened_there(args: argparse.Namespace) -> Bench:
    """On a node: the same options open the same models, whose files lie under the same paths."""
    for file in args.plugin:
        load_plugin(file)
    return opened_bench(args, None)
