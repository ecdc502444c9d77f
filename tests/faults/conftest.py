"""Small sets to merge, and commands in processes of their own that can be killed at any moment."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dcmerge.cli import main
from tests.builders import random_factors, write_adapter

#: How many kills of each kind of work; ``make fuzz`` asks for more.
KILLS = int(os.environ.get("FAULT_KILLS", "3"))
SHAPES = {f"layers.{layer}.weight": (64, 48) for layer in range(12)}
MODELS = ("--base=base.safetensors", "--expert=one=one.safetensors", "--expert=two=two.safetensors")
ADAPTERS = ("--expert=one=adapter0", "--expert=two=adapter1")

Fork = Callable[..., tuple[int | None, float]]


def tensors(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


def parts(folder: Path) -> list[Path]:
    """Everything hidden or unfinished below a folder."""
    return [path for path in folder.rglob("*") if path.name.endswith(".part") or ".part/" in path.as_posix()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a base, two experts and two adapters; cache, jobs and sets lie in it too."""
    for seed, name in enumerate(("base", "one", "two")):
        save_file(tensors(seed), tmp_path / f"{name}.safetensors")
    factors = {f"layers.{layer}.q_proj.weight": (64, 48) for layer in range(8)}
    for seed in range(2):
        write_adapter(tmp_path / f"adapter{seed}", random_factors(seed, 4, factors))
    for what in ("CACHE", "JOBS", "SETS", "ERRORS"):
        monkeypatch.setenv(f"DCMERGE_{what}", str(tmp_path / what.lower()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def draw() -> random.Random:
    """The same moments at every run."""
    return random.Random(20261128)


@pytest.fixture
def forked(tmp_path_factory: pytest.TempPathFactory) -> Fork:
    """Run a command in a process of its own that has everything imported; its exit code, and the seconds that it took.

    ``kill_after``: end it by ``kill -9`` after so many seconds; the code is None where that met it. ``largest``: bytes that a
    file of it may have, as on a disk that is full.
    """
    log = tmp_path_factory.mktemp("log") / "stderr"

    def run(words: Sequence[str], kill_after: float | None = None, largest: int | None = None) -> tuple[int | None, float]:
        begun = time.monotonic()
        sys.stdout.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which here wait for nothing
            child = os.fork()
        if child == 0:
            _become(words, log, largest)
        if kill_after is not None:
            time.sleep(kill_after)
            os.killpg(child, signal.SIGKILL) if os.getpgid(child) == child else os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 2) or code == -signal.SIGKILL, log.read_text()
        return (None if code < 0 else code), time.monotonic() - begun

    run.log = log
    return run


def _become(words: Sequence[str], log: Path, largest: int | None) -> None:
    """In the child: nothing of pytest's is touched on the way out."""
    code = 1
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  (until the process ends)
        if largest is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        code = main(list(words))
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
