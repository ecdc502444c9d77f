"""``--scale unlabeled``: α, and ρ where it is not set, proposed without labels."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from dcmerge.cli.mixing import weights_given
from dcmerge.cli.output import Progress
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, Scale
from dcmerge.studies.tells.proposing import RHO, RHOS, propose

UNLABELED = "unlabeled"


def check(args: argparse.Namespace) -> None:
    """Raises InputError for what cannot go together with it."""
    if args.scale != UNLABELED:
        return
    if args.background or args.by_step or weights_given(args) is not None or args.depth:
        raise InputError(f"expected --scale {UNLABELED} without --background, --by-step, --weights and --depth, got one of them")


def proposed(
    args: argparse.Namespace, bench: Bench, parameters: Mapping[str, Any], limit: int | None, progress: Progress
) -> tuple[Mapping[str, Any], Scale]:
    """The parameters and α that agree most with the experts' answers on ``limit`` validation images a task."""
    given = any(name == RHO for name, _ in args.set)
    rhos = (parameters[RHO],) if given and RHO in parameters else RHOS
    found = propose(bench, args.method, parameters, rhos=rhos, limit=limit, progress=progress)
    return found.parameters, found.scale
