"""Find a Chromium that starts, or install one: `python -m tools.chromium` prints its path.

Tried in this order: the environment variable DCMERGE_CHROMIUM, an installed Chromium or Chrome, Playwright's own;
where none starts, Debian's package (as root, through apt-get), then `playwright install chromium`.
Only the standard library is used, so that it runs before anything is installed.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "DCMERGE_CHROMIUM"
COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC_APPLICATIONS = ("Chromium.app/Contents/MacOS/Chromium", "Google Chrome.app/Contents/MacOS/Google Chrome")
PLAYWRIGHT_PATTERNS = (
    "chromium-*/chrome-linux*/chrome",
    "chromium-*/chrome-mac*/*.app/Contents/MacOS/*",
    "chromium_headless_shell-*/*/*headless*shell*",
)

# Headless on any machine, root included, and silent: no look-ups of its maker's hosts in the background.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class NoChromium(RuntimeError):
    """No Chromium starts on this machine; the message says what was tried and what to do."""


def playwright_folders() -> list[Path]:
    """Where Playwright keeps its browsers on this system."""
    named = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    if named and named != "0":
        return [Path(named)]
    home = Path.home()
    return [home / ".cache/ms-playwright", home / "Library/Caches/ms-playwright"]


def candidates() -> Iterator[str]:
    """Executables that may be a Chromium, the preferred first."""
    yield from filter(None, map(shutil.which, COMMANDS))
    for application in MAC_APPLICATIONS:
        yield from (str(path) for path in [Path("/Applications") / application] if path.exists())
    for folder in playwright_folders():
        for pattern in PLAYWRIGHT_PATTERNS:
            yield from map(str, sorted(folder.glob(pattern), reverse=True))


def telling_line(printed: str) -> str:
    """The line that names the failure, out of all that a failed program has printed."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error|fail|cannot|could not|unable|not found|^E:", line, re.I)]
    return (telling or lines[-1:] or ["it ended without a message"])[0]


def why_not(executable: str) -> str:
    """Empty where the executable starts, else the reason in one line (Ubuntu's command may be an empty shell)."""
    try:
        done = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0 and done.stdout.strip():
        return ""
    return telling_line(done.stderr or done.stdout)


def find_chromium() -> str:
    """Path of a Chromium that starts; NoChromium where there is none."""
    named = os.environ.get(VARIABLE)
    if named:
        reason = why_not(named)
        if reason:
            raise NoChromium(f"{VARIABLE} names {named}, which does not start: {reason}")
        return named
    reasons = []
    for executable in candidates():
        reason = why_not(executable)
        if not reason:
            return executable
        reasons.append(f"{executable} does not start: {reason}")
    raise NoChromium("; ".join(reasons) or "no Chromium and no Chrome is installed")


def run(*command: str) -> str:
    """Run an installer; return an empty text where it worked, else the reason."""
    print("+", " ".join(command), flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else telling_line(done.stderr or done.stdout)


def install_from_debian() -> str:
    """Install Debian's package; empty text where it worked, else the reason."""
    if not shutil.which("apt-get"):
        return "there is no apt-get"
    if os.geteuid() != 0:
        return "apt-get needs root (sudo apt-get install chromium)"
    run("apt-get", "update")  # one unreachable source must not stop the others
    return run("apt-get", "install", "-y", "--no-install-recommends", "chromium")


def install_from_playwright() -> str:
    """Let Playwright download its Chromium; empty text where it worked, else the reason."""
    return run(sys.executable, "-m", "playwright", "install", "chromium")


def ensure_chromium() -> str:
    """Path of a Chromium that starts, installed where needed; NoChromium with everything that was tried."""
    try:
        return find_chromium()
    except NoChromium as error:
        if os.environ.get(VARIABLE):
            raise
        tried = [str(error)]
    for name, install in (("Debian's package", install_from_debian), ("Playwright's", install_from_playwright)):
        reason = install()
        try:
            return find_chromium()
        except NoChromium as error:
            tried.append(f"{name}: {reason or error}")
    raise NoChromium(
        "The browser tests need a Chromium and none could be found or installed.\n  "
        + "\n  ".join(tried)
        + f"\nInstall Chromium or Chrome by hand, or name one: {VARIABLE}=/path/to/chrome make test"
    )


def main() -> None:
    try:
        print(f"Chromium: {ensure_chromium()}")
    except NoChromium as error:
        sys.exit(f"\n{error}\n")


if __name__ == "__main__":
    main()
