"""``dcmerge methods``: the catalogue, from the same declarations that make the sliders."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from dcmerge.cli.options import Commands, Parser, add_command
from dcmerge.cli.output import Progress, paragraph, print_json, table
from dcmerge.cli.plugins import add_plugins, plugin_lines, plugins_of
from dcmerge.methods import NEEDS, Method, methods
from dcmerge.methods.declare import Choice, Declared, Number, value_text
from dcmerge.studies.invariants import HOLDS, VIOLATED, Finding, check_method

#: The exit code where a method breaks a promise.
VIOLATION = 1


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "methods", run, example="--json")
    parser.add_argument(
        "--check",
        metavar="SLUG",
        help="check one method on small random models for what every method promises; exit code 1 where it breaks a promise",
    )
    add_plugins(parser)


def run(args: argparse.Namespace) -> int:
    if args.check is not None:
        return check(args.check, as_json=args.json)
    known = methods().values()
    if args.json:
        print_json({"methods": [as_dict(method) for method in known]})
    else:
        print("\n\n".join(as_text(method) for method in known))
    return 0


def check(slug: str, *, as_json: bool) -> int:
    """What came of every invariant as a table, the violations spelled out below."""
    with Progress() as progress:
        found = check_method(slug, progress=progress)
    violated = [one for one in found if one.outcome == VIOLATED]
    if as_json:
        about = {"method": slug, "plugins": plugins_of([slug]), "sound": not violated}
        print_json({**about, "invariants": [asdict(one) for one in found]})
    else:
        print(
            "\n".join(
                [
                    *plugin_lines([slug]),
                    table(["", "invariant", "promise"], [[one.outcome, one.name, one.promise] for one in found], left=(0, 1, 2)),
                ]
            )
        )
        print("\n".join(paragraph(line) for line in check_lines(slug, found)))
    return VIOLATION if violated else 0


def check_lines(slug: str, found: list[Finding]) -> list[str]:
    """What was violated and what was not checked, and why; then the sum of it."""
    reasons = [f"{one.outcome}: {one.name}: {one.text}" for one in found if one.text]
    held, broken = (sum(one.outcome == outcome for one in found) for outcome in (HOLDS, VIOLATED))
    summary = f"{slug} keeps {held} of {len(found)} promises and breaks {broken or 'none'}"
    return ["", *reasons, *([""] if reasons else []), summary]


def as_dict(method: Method) -> dict[str, Any]:
    """Everything a program needs to offer the method."""
    names = ("slug", "title", "idea", "formula", "source", "needs", "returns", "usual_scale", "differs")
    plain = {name: getattr(method, name) for name in names}
    plain["plugin"] = method.origin.to_dict() if method.origin else None
    return {**plain, "parameters": [parameter_dict(declared) for declared in method.parameters.values()]}


def parameter_dict(declared: Declared) -> dict[str, Any]:
    """Name, type, range or options, default and help of one parameter; the default null is "auto"."""
    constraint = declared.constraint
    about: dict[str, Any] = {"name": declared.name, "title": constraint.title, "help": constraint.help}
    if isinstance(constraint, Number):
        about["type"] = "integer" if constraint.integer else "number"
        about |= {name: getattr(constraint, name) for name in ("low", "high", "step")}
        about["auto"] = constraint.auto or None
    elif isinstance(constraint, Choice):
        about |= {"type": "choice", "options": constraint.options}
    else:
        about["type"] = "flag"
    return about | {"expected": constraint.expected, "default": declared.default}


def as_text(method: Method) -> str:
    """One method as a block of lines."""
    lines = [
        f"{method.slug}: {method.title}",
        paragraph(method.idea, indent=2, hanging=0),
        paragraph(
            f"needs {', '.join(NEEDS[need] for need in method.needs)}; returns {method.returns}; usual α {method.usual_scale:g}",
            indent=2,
        ),
        paragraph(f"source: {method.source}", indent=2),
        *([paragraph(f"differs from the publication: {method.differs}", indent=2)] if method.differs else []),
        *([paragraph(f"{method.origin.label}, sha256 {method.origin.sha256}", indent=2)] if method.origin else []),
        paragraph(f"formula: {method.formula}", indent=2),
    ]
    return "\n".join([*lines, *(parameter_text(declared) for declared in method.parameters.values())])


def parameter_text(declared: Declared) -> str:
    constraint = declared.constraint
    auto = f" (auto: {constraint.auto})" if isinstance(constraint, Number) and constraint.auto else ""
    default = f"default {value_text(declared.default)}{auto}"
    text = f"--set {declared.name}=…  {constraint.expected}, {default}. {constraint.help}"
    return paragraph(text, indent=2, hanging=4)
