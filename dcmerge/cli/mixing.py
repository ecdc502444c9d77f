"""Options of the mixer: a weight for every expert (``--weights``, see ``fitting``), and profiles over depth."""

from __future__ import annotations

import argparse

from dcmerge.cli.options import collected
from dcmerge.errors import InputError
from dcmerge.vectors.mix import Mix, parsed_weights, profile


def add_depth(parser: argparse._ActionsContainer) -> None:
    """``--depth``."""
    parser.add_argument(
        "--depth",
        action="append",
        default=[],
        metavar="[NAME=]PROFILE",
        help="what is multiplied over the blocks, linear:0.5:1.5 from the first to the last or blocks:0.5,1,0.8: α, or with NAME "
        "the weight of one expert; once for each",
    )


def chosen_mix(args: argparse.Namespace) -> Mix:
    """What those options say, checked as far as that goes without the models; raises InputError."""
    own, alpha = [], []
    for text in args.depth:
        name, equals, rest = text.rpartition("=")
        if equals and not name.strip():
            raise InputError(f"depth: expected NAME=PROFILE or PROFILE alone, got {text!r:.100}")
        own += [(name.strip(), rest)] if equals else []
        alpha += [] if equals else [rest]
    if len(alpha) > 1:
        raise InputError(f"--depth: expected one profile of α, got {len(alpha)}")
    text = weights_given(args)
    weights = None if text is None else parsed_weights(text)
    return Mix.of(weights, collected(own, "--depth"), profile(alpha[0]) if alpha else None)


def weights_given(args: argparse.Namespace) -> str | None:
    """The text with the experts' weights."""
    return getattr(args, "expert_weights", None)
