"""``dcmerge app``: start the dashboard."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from dcmerge.checkpoints.leftovers import remove_leftovers
from dcmerge.cli.options import Commands, Parser, add_command, whole_number
from dcmerge.cli.output import print_json
from dcmerge.cli.plugins import add_plugins
from dcmerge.errors import InputError
from dcmerge.methods.plugins import VARIABLE as PLUGINS_VARIABLE
from dcmerge.runtime.processes import environment

PACKAGE = Path(__file__).resolve().parents[1]
#: Where the dashboard's home page lies, with pages/ and .streamlit/ beside it: in an installed package, in a clone.
SCRIPTS = (PACKAGE / "ui" / "dashboard" / "app.py", PACKAGE.parent / "app.py")
#: Started as a file, not as a module: the server answers before the package, and with it torch, is imported.
SERVER = PACKAGE / "ui" / "serve.py"
#: Streamlit's pages are scripts of their own: the folders they may read reach them through the environment.
ROOTS_VARIABLE = "DCMERGE_ROOTS"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: What another address than the loopback means.
EXPOSED = (
    "note: there is no password. Whoever reaches {host} can read every checkpoint below the roots, start, cancel and read jobs, "
    "write merged files beside them, and use this machine's time; docs/security.md says what is promised and what is not"
)
EVERYWHERE = ("0.0.0.0", "::")


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(commands, common, "app", run, example="--root checkpoints --port 8600")
    parser.add_argument("--port", type=whole_number(1, 65535), default=8501, metavar="N", help="default 8501")
    parser.add_argument("--host", default=LOOPBACK[0], metavar="H", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--root",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder the app may read; once for each (default: ./checkpoints)",
    )
    add_plugins(parser)


def run(args: argparse.Namespace) -> int:
    roots = [checked_root(root) for root in args.root]
    plugins = [checked_path("plugin", os.path.abspath(path)) for path in args.plugin]
    command = server_command(args.host, args.port)
    paths = {ROOTS_VARIABLE: roots, PLUGINS_VARIABLE: plugins}
    variables = {**environment(), **{name: os.pathsep.join(given) for name, given in paths.items() if given}}
    if args.json:
        print_json({"url": f"http://{args.host}:{args.port}", "roots": roots, "plugins": plugins, "command": command})
    if args.host not in LOOPBACK:
        print(EXPOSED.format(host=args.host), file=sys.stderr)
    for root in roots:
        if left := remove_leftovers(Path(root), below=True).note(root):
            print(f"note: {left}", file=sys.stderr)
    return start(command, variables)


def checked_root(text: str) -> str:
    """An existing folder as an absolute path; raises InputError for anything else."""
    if not text or "\0" in text or not os.path.isdir(text):
        raise InputError(f"root: expected an existing folder, got {text!r}")
    return checked_path("root", os.path.abspath(text))


def checked_path(option: str, path: str) -> str:
    """A path that a list of paths can hold."""
    if os.pathsep in path:
        raise InputError(f"{option}: expected a path without {os.pathsep!r}, got {path}")
    return path


def script() -> Path:
    """The dashboard's home page; raises InputError where it is missing."""
    found = next((place for place in SCRIPTS if place.is_file()), None)
    if found is None:
        raise InputError(f"expected the dashboard's script {SCRIPTS[0]}, found none: install the package again")
    return found


def server_command(host: str, port: int) -> list[str]:
    """Streamlit's command; another address than the loopback is added to the names that visitors may use for it."""
    if find_spec("streamlit") is None:
        raise InputError("expected the package streamlit, which is not installed: pip install streamlit")
    # Modules in the folder where the command was typed must not come first: -P, as for every process of this package.
    command = [sys.executable, "-P", str(SERVER), str(script())]
    command += ["--server.address", host, "--server.port", str(port)]
    if host not in LOOPBACK:
        names = ["*"] if host in EVERYWHERE else [*LOOPBACK[:2], host]
        for name in names:
            command += ["--server.allowedHosts", name]
        # Links that the server prints name an address that works.
        command += ["--browser.serverAddress", "localhost" if host in EVERYWHERE else host]
    return command


def start(command: list[str], environment: dict[str, str]) -> int:
    """Become the server, so that signals reach it; where the system cannot, wait for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment)
    return subprocess.call(command, env=environment)
