"""The package installs whole: built, installed in a fresh environment, started far from the clone, opened in a browser."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import dcmerge
from tests.browser.steps import figure, go, traces, visit
from tools.app_server import REPOSITORY, RunningApp, running
from tools.browser import errors_shown
from tools.screenshots import page_paths

#: Building, installing and starting count into the time of the first test that needs them.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LARGEST_WHEEL = 100e6  # bytes: what package indexes take; the demo fills most of it
DASHBOARD = "dcmerge/ui/dashboard"
#: Nothing leads from here to the clone.
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def done(*command: object, folder: Path) -> str:
    """Run a command without this repository on its path, and return what it printed; fails with its messages."""
    words = list(map(str, command))
    found = subprocess.run(words, cwd=folder, env=CLEAN, capture_output=True, text=True, timeout=280, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout.strip()


def files_below(folder: Path) -> set[str]:
    """What a package takes from a folder of the clone, as paths in the clone."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {path.relative_to(REPOSITORY).as_posix() for path in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", REPOSITORY, tmp_path_factory.mktemp("wheel"))


def built(kind: str, source: Path, folder: Path) -> Path:
    """A wheel or an sdist of the package, with the build backend that is installed: nothing is fetched."""
    done(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder, folder=source)
    [made] = folder.iterdir()
    return made


def environment(folder: Path) -> Path:
    """A fresh environment that finds torch and the rest where this one does; returns its folder of commands."""
    done(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    commands = folder / ("Scripts" if sys.platform == "win32" else "bin")
    packages = done(commands / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder)
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    Path(packages, "shared.pth").write_text("\n".join(shared))
    return commands


def install(commands: Path, *what: object) -> None:
    """Install this package alone into an environment; what it needs is there."""
    pip = [sys.executable, "-m", "pip", "--python", commands / "python", "--disable-pip-version-check", "install"]
    done(*pip, "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", *what, folder=commands)


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment in which the wheel is installed."""
    found = environment(tmp_path_factory.mktemp("environment"))
    install(found, wheel)
    return found


@pytest.fixture(scope="module")
def app(commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """`dcmerge app` as installed, in an empty folder; the fixtures of this folder take it for their dashboard."""
    empty = tmp_path_factory.mktemp("empty")
    with running(lambda port: [str(commands / "dcmerge"), "app", "--port", str(port)], empty, {"PYTHONPATH": ""}) as started:
        yield started


@pytest.fixture(scope="module")
def app_url(app: RunningApp) -> str:
    return app.url


def test_the_wheel_holds_the_package_and_the_dashboard_and_nothing_else(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST_WHEEL
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        scripts = {
            f"{DASHBOARD}/{path}": path for path in {"app.py", ".streamlit/config.toml", *files_below(REPOSITORY / "pages")}
        }
        own = {name for name in names if ".dist-info/" not in name}
        assert own == files_below(REPOSITORY / "dcmerge") | set(scripts)
        for name, path in scripts.items():
            assert opened.read(name) == (REPOSITORY / path).read_bytes(), name
    notices = {name.partition(".dist-info/licenses/")[2] for name in names if "/licenses/" in name}
    assert notices == {"LICENSE", "dcmerge/zoo/NOTICE"}


def test_the_source_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    source = built("sdist", REPOSITORY, tmp_path / "source")
    with tarfile.open(source) as opened:
        opened.extractall(tmp_path, filter="data")
    again = built("wheel", tmp_path / source.name.removesuffix(".tar.gz"), tmp_path / "again")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert {(file.filename, file.CRC) for file in first.infolist()} == {
            (file.filename, file.CRC) for file in second.infolist()
        }


def test_an_editable_install_runs_the_clone(tmp_path: Path) -> None:
    found = environment(tmp_path)
    install(found, "--editable", REPOSITORY)
    code = "import dcmerge.cli.app as app; print(app.script())"
    assert done(found / "python", "-c", code, folder=tmp_path) == str(REPOSITORY / "app.py")


def test_the_command_is_the_installed_one(commands: Path, tmp_path: Path) -> None:
    code = "import dcmerge, importlib.metadata; print(dcmerge.__file__, importlib.metadata.version('dcmerge'), sep='\\n')"
    where, version = done(commands / "python", "-c", code, folder=tmp_path).splitlines()
    assert Path(where).is_relative_to(commands.parent) and version == dcmerge.__version__
    assert done(commands / "dcmerge", "--version", folder=tmp_path) == f"dcmerge {version}"


def test_the_spectra_page_is_drawn_in_its_theme(page: Page, app_url: str) -> None:
    visit(page, f"{app_url}/Spectra")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Spectra")
    assert traces(page, "Singular values of") and figure(page, "Every matrix by depth and kind").is_visible()
    theme = tomllib.loads((REPOSITORY / ".streamlit/config.toml").read_text())["theme"]["light"]
    assert style(page, "stApp", "color") == rgb(theme["textColor"])
    assert style(page, "stSidebar", "backgroundColor") == rgb(theme["sidebar"]["backgroundColor"])
    assert not errors_shown(page)


def test_every_page_is_there_and_linked(page: Page, app_url: str) -> None:
    # The quickest that these pages can be drawn.
    visit(page, f"{app_url}/Merge", set="demo-lora", quick="25", method="average")
    assert not errors_shown(page)
    for name in page_paths(REPOSITORY / "app.py").values():
        if name not in ("", "Merge"):
            go(page, name)
            assert not errors_shown(page), name


def style(page: Page, part: str, name: str) -> str:
    """How the browser draws a part of the page."""
    return page.get_by_test_id(part).evaluate("(drawn, name) => getComputedStyle(drawn)[name]", name)


def rgb(colour: str) -> str:
    """ "#1b2430" in the browser's words, "rgb(27, 36, 48)"."""
    return "rgb({}, {}, {})".format(*bytes.fromhex(colour.removeprefix("#")))
