"""Start the dashboard as its own process on a free loopback port, for tests and screenshots."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS = 90.0  # a cold start imports torch, which takes long on a busy machine
LOG_TAIL = 4000  # characters


@dataclass(frozen=True)
class RunningApp:
    """A dashboard that answers: its address, its process and the file with all it has printed."""

    url: str
    process: subprocess.Popen
    log: Path

    def log_tail(self) -> str:
        """The last lines the dashboard printed."""
        return self.log.read_text(errors="replace")[-LOG_TAIL:]


def free_port() -> int:
    """A loopback port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_healthy(url: str) -> bool:
    """Whether the server at this address says that it can take visitors."""
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_until_healthy(app: RunningApp, seconds: float) -> None:
    """Return once the server answers; RuntimeError with its log where it ends or takes too long."""
    deadline = time.monotonic() + seconds
    while not is_healthy(app.url):
        if app.process.poll() is not None:
            raise RuntimeError(f"The dashboard ended with code {app.process.returncode}:\n{app.log_tail()}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"The dashboard did not answer within {seconds:.0f} s:\n{app.log_tail()}")
        time.sleep(0.2)


def end(process: subprocess.Popen) -> None:
    """End the process and everything it started, politely first."""
    for sent, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    # workers that outlive a polite server still belong to its group
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def running_app(
    script: Path = REPOSITORY / "app.py", *options: str, variables: Mapping[str, str] | None = None
) -> contextlib.AbstractContextManager[RunningApp]:
    """Run a Streamlit script with this repository's package until the block is left.

    script: the home page; pages/ and settings beside it are found.
    options: passed on to `streamlit run`. variables: added to the environment.
    """
    server = REPOSITORY / "dcmerge" / "ui" / "serve.py"
    command = [sys.executable, "-P", str(server), str(script), *options]
    return running(lambda port: [*command, "--server.port", str(port)], REPOSITORY, variables)


@contextlib.contextmanager
def running(
    command: Callable[[int], list[str]], folder: Path, variables: Mapping[str, str] | None = None
) -> Iterator[RunningApp]:
    """Run in this folder what `command` makes of a free port, until the block is left.

    The home folder is a temporary one, so that no setting of the developer and no earlier cache takes part.
    """
    with tempfile.TemporaryDirectory(prefix="dcmerge-app-") as home:
        port, log = free_port(), Path(home) / "streamlit.log"
        quiet = {"HOME": home, "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment = {**os.environ, **quiet, **(variables or {})}
        with log.open("wb") as printed:
            process = subprocess.Popen(
                command(port),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        app = RunningApp(f"http://127.0.0.1:{port}", process, log)
        try:
            wait_until_healthy(app, START_SECONDS)
            yield app
        finally:
            end(process)
