"""``dcmerge app`` starts Streamlit with the right options; here it is only asked for the command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dcmerge.cli import app
from dcmerge.methods.plugins import VARIABLE as PLUGINS_VARIABLE
from dcmerge.sets.model_sets import ROOTS_VARIABLE
from tests.cli.conftest import Run
from tests.plugins import GOOD, write_plugin

Started = list[tuple[list[str], dict[str, str]]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """Commands that would have been started."""
    calls: Started = []

    def start(command: list[str], environment: dict[str, str]) -> int:
        calls.append((command, environment))
        return 0

    monkeypatch.setattr(app, "start", start)
    monkeypatch.delenv(ROOTS_VARIABLE, raising=False)
    return calls


def test_the_pages_read_the_variable_that_is_set() -> None:
    assert app.ROOTS_VARIABLE == ROOTS_VARIABLE


def test_the_dashboard_starts_on_the_loopback(run: Run, started: Started) -> None:
    done = run("app")
    assert (done.code, done.out, done.err) == (0, "", "")
    [(command, environment)] = started
    assert command[:2] == [sys.executable, "-P"] and Path(command[2]).name == "serve.py"
    assert Path(command[3]) == Path(__file__).resolve().parents[2] / "app.py"
    assert command[4:] == ["--server.address", "127.0.0.1", "--server.port", "8501"]
    assert ROOTS_VARIABLE not in environment


def test_roots_are_passed_on_as_absolute_paths(
    run: Run, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    done = run("app", "--root", "a", "--root", tmp_path, "--port", "8600", "--json")
    roots = [str(tmp_path / "a"), str(tmp_path)]
    assert done.json == {"url": "http://127.0.0.1:8600", "roots": roots, "plugins": [], "command": started[0][0]}
    assert started[0][1][ROOTS_VARIABLE] == os.pathsep.join(roots)


@pytest.mark.usefixtures("own_register")
def test_plugins_are_checked_and_passed_on_as_absolute_paths(
    run: Run, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(tmp_path)
    write_plugin(tmp_path, "1 / 0", "bad.py")
    monkeypatch.chdir(tmp_path)
    assert run("app", "--plugin", "mine.py", "--json").json["plugins"] == [str(tmp_path / "mine.py")]
    assert started[0][1][PLUGINS_VARIABLE] == str(tmp_path / "mine.py")
    run("app", "--plugin", "bad.py").assert_refused("plugin bad.py: line 1 raised ZeroDivisionError")
    odd = write_plugin(tmp_path / f"a{os.pathsep}b", GOOD.replace('"mine"', '"odd"'))
    run("app", "--plugin", odd).assert_refused("plugin", "without")
    assert len(started) == 1


def test_another_address_is_allowed_and_warned_of(run: Run, started: Started) -> None:
    done = run("app", "--host", "192.0.2.7")
    assert done.code == 0 and "no password" in done.err
    command = started[0][0]
    allowed = [command[i + 1] for i, word in enumerate(command) if word == "--server.allowedHosts"]
    assert allowed == ["127.0.0.1", "localhost", "192.0.2.7"]


def test_bad_options_of_app(run: Run, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("app", "--port", "70000").assert_refused("--port", "65535")
    run("app", "--port", "http").assert_refused("--port", "http")
    run("app", "--root", tmp_path / "none").assert_refused("root", "none")
    run("app", "--root", "").assert_refused("root")
    odd = tmp_path / f"a{os.pathsep}b"
    odd.mkdir()
    run("app", "--root", odd).assert_refused("root", "without")
    monkeypatch.setattr(app, "SCRIPTS", (tmp_path / "app.py",))
    run("app").assert_refused("app.py", "install")
    assert started == []


def test_the_packages_own_script_comes_before_one_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file app.py beside an installed package is somebody else's."""
    own, beside = tmp_path / "own.py", tmp_path / "app.py"
    beside.touch()
    monkeypatch.setattr(app, "SCRIPTS", (own, beside))
    assert app.script() == beside
    own.touch()
    assert app.script() == own
