"""Make the virtual environment and install into it: `python tools/environment.py VENV STAMP FILE... [-- OPTION...]`.

The files are lists of requirements, the options are pip's.

Runs on a bare Python, so only the standard library is used. The stamp file is written last, after everything that
must import together has been imported once: an interrupted or broken installation is repeated by the next `make`.
"""

from __future__ import annotations  # older Pythons must get as far as the message below

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

OLDEST_PYTHON = (3, 11)
OTHER_PYTHON = "Another Python can be named: make app PYTHON=/path/to/python3.11"
ROOMY_GB = 8  # torch's default build for Linux brings its CUDA libraries: the whole environment takes 6.2 GB

# torchvision registers its operators when torch matches; without a match the import itself fails.
IMPORT_CHECK = """
import torch, torchvision
torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
import open_clip, plotly, safetensors.torch, streamlit
print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, open_clip {open_clip.__version__}, "
      f"streamlit {streamlit.__version__}: all import")
"""


def fail(message: str) -> None:
    """Print one readable message and leave with exit code 1."""
    sys.exit(f"\n{message}\n")


def check_interpreter() -> None:
    """Leave with a clear message where this Python cannot make the environment."""
    if sys.version_info < OLDEST_PYTHON:
        fail(
            f"Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer is needed and {sys.executable} is "
            f"{sys.version.split()[0]}. {OTHER_PYTHON}"
        )
    try:
        import ensurepip  # noqa: F401  (Debian keeps it in a package of its own)
        import venv  # noqa: F401
    except ImportError as error:
        version = "{}.{}".format(*sys.version_info)
        fail(
            f"{sys.executable} cannot make virtual environments: its module {error.name} is missing. On Debian and "
            f"Ubuntu: apt-get install python{version}-venv. {OTHER_PYTHON}"
        )


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def has_pip(python: Path) -> bool:
    """Whether the environment is whole (an interrupted one has a python but no pip)."""
    if not python.exists():
        return False
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def make_environment(environment: Path) -> Path:
    """Make the environment where there is none or a broken one; return its python."""
    python = python_of(environment)
    if not has_pip(python):
        if environment.exists() and any(environment.iterdir()) and not (environment / "pyvenv.cfg").exists():
            fail(
                f"{environment} is neither empty nor a virtual environment, so it stays. Name another folder: make app VENV=.venv"
            )
        print(f"Making the virtual environment {environment} with {sys.executable}", flush=True)
        if subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=False).returncode != 0:
            fail(f"The virtual environment {environment} could not be made; the reason stands above. {OTHER_PYTHON}")
    return python


def install(python: Path, files: list[str], options: list[str]) -> None:
    """Install the requirement files; warn beforehand where the disk is small."""
    free = shutil.disk_usage(python.parent).free / 1e9
    if free < ROOMY_GB and not (python.parent.parent / ".installed").exists():
        print(
            f"Note: {free:.1f} GB are free here; torch's default build for Linux takes about 6 GB. A CPU build is "
            'smaller: pass pip its index with PIP_ARGS="--extra-index-url ...".',
            flush=True,
        )
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", *options]
    for file in files:
        command += ["-r", file]
    if subprocess.run(command, check=False).returncode != 0:
        fail(
            "Installing failed; pip's reason stands above (no network, no space left, or no build for this Python and "
            "system). Run the same command again once it is mended: nothing that was done is lost."
        )


def check_imports(python: Path) -> None:
    """Import what must fit together; a clear message where it does not."""
    done = subprocess.run([python, "-c", IMPORT_CHECK], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        print(done.stdout.strip(), flush=True)
        return
    lines = done.stderr.strip().splitlines() or ["it ended without a message"]
    listing = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=False).stdout
    pair = ", ".join(line for line in listing.splitlines() if line.startswith(("torch==", "torchvision==")))
    fail(
        f"Everything is installed but does not import together ({pair or 'torch is missing'}): {lines[-1]}\n"
        "torch and torchvision must come from the same release and the same build (both CPU or both CUDA). "
        "Start afresh with: make clean app"
    )


def main(arguments: list[str]) -> None:
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, options = arguments[:cut], arguments[cut + 1 :]
    else:
        options = []
    if len(arguments) < 3:
        fail(__doc__ or "")
    environment, stamp, files = Path(arguments[0]), Path(arguments[1]), arguments[2:]
    check_interpreter()
    started = time.monotonic()
    python = make_environment(environment)
    install(python, files, options)
    check_imports(python)
    stamp.touch()
    print(f"Installed in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
