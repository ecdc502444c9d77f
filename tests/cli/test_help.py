"""The help ends with examples that the command line itself takes."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys

import pytest

import dcmerge
from dcmerge.cli import COMMANDS, build_parser
from dcmerge.cli.options import method_parameters
from tests.cli.conftest import Run

NAMES = list(COMMANDS)


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


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_what_needs_no_numbers_reads_none_of_the_large_libraries(words: list[str]) -> None:
    told = f"import sys; from dcmerge.cli import main\ntry: main({words!r})\nexcept SystemExit: pass\nprint(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True).stdout
    loaded = set(found.splitlines()[-1].split())
    assert "dcmerge.cli.parser" in loaded
    assert not loaded & {"torch", "numpy", "streamlit", "optuna", "safetensors", "yaml", "plotly"}


def test_the_front_door_gives_methods_although_a_package_has_that_name() -> None:
    told = "import dcmerge.methods.loop, dcmerge; print(len(dcmerge.methods()), dcmerge.merge.__module__, len(dir(dcmerge)) > 20)"
    found = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True).stdout.split()
    assert int(found[0]) > 30 and found[1:] == ["dcmerge.merging.merge", "True"]
