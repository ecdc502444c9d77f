"""The help ends with examples that the command line itself takes."""

from __future__ import annotations

import argparse
import shlex

import pytest

import dcmerge
from dcmerge.cli import COMMANDS, build_parser
from dcmerge.cli.options import method_parameters
from tests.cli.conftest import Run

NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]


def examples_in(help_text: str) -> list[str]:
    """The lines below the last heading of a help text."""
    return [line.strip() for line in help_text.rpartition("\nexample")[2].splitlines()[1:]]


def parsed(example: str) -> argparse.Namespace:
    """What the real parser makes of a line as typed in a terminal; a method's parameters are checked as well."""
    program, *words = shlex.split(example, comments=True)
    assert program == "dcmerge"
    args = build_parser().parse_args(words)
    if getattr(args, "method", None):
        method_parameters(args)
    return args


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_every_command_ends_with_an_example(run: Run, name: str) -> None:
    done = run(name, "--help")
    assert (done.code, done.err) == (0, "")
    [example] = examples_in(done.out)
    assert parsed(example).command == name


def test_the_help_ends_with_three_examples(run: Run) -> None:
    done = run("--help")
    assert (done.code, done.err) == (0, "")
    assert [parsed(example).command for example in examples_in(done.out)] == ["app", "compare", "merge"]


def test_the_version_is_told(run: Run) -> None:
    done = run("--version")
    assert (done.code, done.out, done.err) == (0, f"dcmerge {dcmerge.__version__}\n", "")
