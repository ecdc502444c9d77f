"""``--only``, ``--without``, ``--vocabulary``, ``--weights`` and ``--different-bases``: how files become one set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dcmerge.errors import InputError
from dcmerge.vectors.fit import BASE, LIVE, VOCABULARIES, WEIGHTS, Fit


class _Weights(argparse.Action):
    """``--weights`` three times: pairs NAME=NUMBER of experts, live or ema of a state, or what an encoder lacks."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[str] | None,
        option_string: str | None = None,
    ) -> None:
        text = str(values or "")
        meant = "expert_weights" if "=" in text or not text.strip() else "state_weights" if text in WEIGHTS else "weights"
        setattr(namespace, meant, text)


def add_fit(group: argparse._ActionsContainer) -> None:
    """The options of a ``Fit``."""
    for option, what in (("only", "merge only the parameters"), ("without", "do not merge the parameters")):
        group.add_argument(
            f"--{option}",
            action="append",
            default=[],
            metavar="PATTERN",
            help=f"{what} whose names match, for example 'model.layers.*'; once for each pattern",
        )
    group.add_argument(
        "--vocabulary",
        choices=VOCABULARIES,
        default=BASE,
        help="where vocabularies differ, write the base's tokens (default) or those of the experts too",
    )
    group.add_argument(
        "--weights",
        action=_Weights,
        metavar="NAME=W,...|live|ema",
        help="how much each expert counts in a merge, cats=1.2,dogs=0.8: its task vector times W (default 1). Of files that hold "
        "averaged weights beside the live ones: which (default live). With --encoder also a FILE or open_clip's TAG: what the "
        "base lacks of text tower and projection",
    )
    group.add_argument(
        "--different-bases", action="store_true", help="merge adapters although their settings name different bases"
    )


def fit_of(args: argparse.Namespace) -> Fit:
    """What those options say."""
    fit = Fit(
        tuple(args.only),
        tuple(args.without),
        args.vocabulary,
        getattr(args, "state_weights", None) or LIVE,
        args.different_bases,
    )
    if args.zoo and not args.folder and fit != Fit():
        given = ", ".join(f"--{name.replace('_', '-')}" for name in fit.to_data())
        raise InputError(f"expected {given} with models of your own, got it with --zoo")
    if getattr(args, "expert_weights", None) is not None and not hasattr(args, "depth"):
        raise InputError(f"weights: expected weights of experts with a command that merges, got {args.expert_weights!r:.100}")
    if args.weights and not hasattr(args, "encoder"):  # a command without images
        raise InputError(f"weights: expected one of {', '.join(WEIGHTS)}, got {args.weights!r}")
    return fit
