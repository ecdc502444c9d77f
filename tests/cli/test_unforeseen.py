"""The outermost rule of the command line: whatever happens is told in a sentence, and a fault leaves a report."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from dcmerge.cli import main, methods


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DCMERGE_ERRORS", str(tmp_path / "errors"))
    return tmp_path / "errors"


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def run(*_: object) -> int:
        raise error

    monkeypatch.setattr(methods, "run", run)
    return main(["methods"])


@pytest.mark.parametrize(
    "error", [AssertionError(), EOFError("x"), KeyError("\x1b[31m"), RecursionError("deep"), ZeroDivisionError()]
)
def test_a_fault_is_a_sentence_with_a_report(
    error: Exception, reports: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert failing(error, monkeypatch) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "Traceback" not in told and "\x1b" not in told and type(error).__name__ in told
    (report,) = reports.iterdir()
    assert str(report) in told and "Traceback" in report.read_text()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "more memory than the machine has"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 99 bytes"), "more memory"),
        (PermissionError(13, "Permission denied", "/a\nb"), r"Permission denied (/a\nb)"),
        (torch.linalg.LinAlgError("the algorithm failed to converge"), "did not converge"),
    ],
)
def test_limits_of_the_machine_are_no_fault(
    error: Exception, told: str, reports: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert failing(error, monkeypatch) == 2
    assert told in capsys.readouterr().err and not reports.exists()


def test_a_report_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DCMERGE_ERRORS", str(tmp_path / "file" / "errors"))
    assert failing(ValueError("odd"), monkeypatch) == 1
    assert "ValueError: odd" in capsys.readouterr().err


def test_warnings_of_libraries_stay_away(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def run(*_: object) -> int:
        warnings.warn("for developers", stacklevel=1)
        return 0

    monkeypatch.setattr(methods, "run", run)
    assert main(["methods"]) == 0 and capsys.readouterr().err == ""


def test_so_many_threads_are_refused(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods", "--threads", "10000"]) == 2
    assert "expected an integer from 1 to" in capsys.readouterr().err
