"""The frame of the command line: exit codes, the one line on stderr, tables, JSON, progress."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dcmerge.cli import COMMANDS, output
from dcmerge.cli.output import Progress, elided, paragraph, percent_with_interval, print_json, size, table
from dcmerge.methods import methods
from tests.cli.conftest import Result, Run

NAMES = list(COMMANDS)


def process(*arguments: object, cwd: Path | None = None) -> Result:
    """A real process, as a user starts it."""
    command = [sys.executable, "-m", "dcmerge", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=240, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def test_a_process_merges_and_prints_only_json(models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    done = process("merge", *models, "--method", "ties", "--set", "density=0.5", "--out", out, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json["out"] == str(out) and out.is_file()


def test_a_process_refuses_bad_input_with_one_line(models: list[str], tmp_path: Path) -> None:
    (tmp_path / "task1.safetensors").write_bytes((tmp_path / "task1.safetensors").read_bytes()[:100])
    done = process("merge", *models, "--method", "ties", "--out", tmp_path / "merged.safetensors")
    done.assert_refused("task1.safetensors")
    assert done.out == "" and not (tmp_path / "merged.safetensors").exists()


def test_a_process_refuses_an_unknown_option_with_one_line() -> None:
    process("methods", "--fast").assert_refused("--fast")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    command = [sys.executable, "-c", "import sys; from dcmerge.cli import main; sys.exit(main(['methods']))"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        started.stdout.close()
        error = started.stderr.read()
    assert (started.returncode, error) == (141, "")


def test_control_c_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dcmerge.cli.methods.methods", interrupted)
    done = run("methods")
    assert (done.code, done.out, done.err) == (130, "", "stopped\n")


def test_bugs_are_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmerge.cli.methods.methods", lambda: 1 / 0)
    done = run("methods")
    assert (done.code, done.out) == (1, "") and "ZeroDivisionError" in done.err and "report" in done.err


def test_every_command_has_help_and_json(run: Run) -> None:
    assert NAMES == [
        "methods",
        "inspect",
        "spectra",
        "convert",
        "merge",
        "run",
        "recipe",
        "evaluate",
        "compare",
        "sweep",
        "damage",
        "lost",
        "layers",
        "tells",
        "report",
        "zoo",
        "runs",
        "jobs",
        "cache",
        "verify",
        "app",
    ]
    whole = run("--help")
    assert whole.code == 0 and all(name in whole.out for name in NAMES)
    for name in NAMES:
        helped = run(name, "--help")
        assert helped.code == 0 and "--json" in helped.out and "--threads" in helped.out, name


def test_no_command_is_bad_input(run: Run) -> None:
    run().assert_refused("COMMAND")
    run("no-such-command").assert_refused("no-such-command", "compare")


@pytest.mark.parametrize("place", ["before", "after"])
def test_threads_stand_before_or_after_the_command(run: Run, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert run(*(["--threads", "3", "methods"] if place == "before" else ["methods", "--threads=3"])).code == 0
    assert asked == [3]
    assert run("methods").code == 0 and asked == [3]
    run("--threads", "0", "methods").assert_refused("--threads", "from 1 to", "'0'")


def test_names_from_files_cannot_move_the_cursor(run: Run, tmp_path: Path) -> None:
    done = run("inspect", f"--expert=a={tmp_path}/\x1b[2J\nsecond")
    done.assert_refused("\\x1b[2J\\nsecond")
    assert "\x1b" not in done.err


def test_methods_in_json_say_everything_that_a_form_needs(run: Run) -> None:
    listed = {entry["slug"]: entry for entry in run("methods", "--json").json["methods"]}
    assert list(listed) == list(methods())
    for slug, method in methods().items():
        assert {"title", "idea", "needs", "returns", "source", "formula", "usual_scale"} <= set(listed[slug])
        told = {parameter["name"]: parameter for parameter in listed[slug]["parameters"]}
        assert {name: entry["default"] for name, entry in told.items()} == method.defaults()
    rho = {p["name"]: p for p in listed["dc_merge"]["parameters"]}["rho"]
    assert (rho["type"], rho["low"], rho["default"]) == ("number", 1, 5.0)


def test_methods_in_text_name_every_parameter(run: Run) -> None:
    text = run("methods").out
    assert max(map(len, text.splitlines())) <= output.WIDTH
    for slug, method in methods().items():
        assert f"{slug}: {method.title}" in text and method.source in text
        assert all(f"--set {name}=…" in text for name in method.parameters)


def test_tables_are_aligned_and_never_too_wide() -> None:
    assert table(["task", "s"], [["mnist", 1.5], ["dtd", None]]) == "task     s\nmnist  1.5\ndtd      -"
    wide = table(["name", "text"], [["n" * 90, "t" * 90]], left=(0, 1), indent=2)
    assert max(map(len, wide.splitlines())) == output.WIDTH and "…" in wide
    assert elided("abcdefghij", 5) == "ab…ij" and elided("abc", 5) == "abc" and elided("abcdef", 4) == "a…ef"
    assert table(["a"], []) == "a"
    assert max(map(len, paragraph("word " * 100 + "x" * 300, indent=4).splitlines())) <= output.WIDTH


def test_figures_are_rounded_for_people() -> None:
    assert percent_with_interval(0.6134, (0.582, 0.6431)) == "61.3 [58.2, 64.3]"
    assert percent_with_interval(-0.01, (-0.0224, 0.0), signed=True) == "-1.0 [-2.2, +0.0]"
    assert [size(999), size(1000), size(15_230_000)] == ["999 bytes", "1.0 kB", "15.2 MB"]
    assert size(2 * 10**15) == "2000.0 TB"


def test_json_has_no_nan_and_keeps_lists_short(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"a": [1.5, math.nan, -math.inf], "b": {}, "c": [], "d": [{"é": None}, [1]], "e": "\x1b"}
    print_json(document)
    text = capsys.readouterr().out
    assert json.loads(text) == {**document, "a": [1.5, None, None]}
    assert '"a": [1.5, null, null]' in text and text.isascii()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals_only() -> None:
    terminal, file = _Terminal(), io.StringIO()
    for stream in (terminal, file):
        with Progress(stream) as tell:
            tell(0.5, "layer \x1b[2J" + 300 * "x")
    assert file.getvalue() == ""
    shown = terminal.getvalue()
    assert "[##########          ]  50% layer \\x1b[2J" in shown and shown.endswith("\r\x1b[K") and "\n" not in shown
