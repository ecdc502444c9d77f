"""Write dcmerge/zoo/NOTICE: every source with licence and attribution, the fonts' from their copyright files."""

from __future__ import annotations

import re
from pathlib import Path

from dcmerge.zoo.build.sources import FONT_PACKAGES, NPM_PACKAGES, deb_folder

HEAD = Path(__file__).with_name("notice_head.txt")  # {package} stands for the version of an npm package


def licences(work: Path, package: str) -> str:
    """The licence names of a Debian package's copyright file, guessed for files without the machine-readable form."""
    file = deb_folder(work, package) / "usr/share/doc" / package / "copyright"
    text = file.read_text(errors="replace") if file.exists() else ""
    names = sorted({name.strip() for name in re.findall(r"^License:[ \t]*(\S.{0,40})$", text, re.M)})
    if names:
        return ", ".join(names)
    known = {
        "OFL-1.1": r"SIL Open Font License",
        "GPL": r"General Public License",
        "public domain": r"[Pp]ublic [Dd]omain",
    }
    return ", ".join(name for name, pattern in known.items() if re.search(pattern, text, re.I)) or "free licence, see the package"


def write(work: Path, path: Path) -> None:
    """Write the whole NOTICE file."""
    head = HEAD.read_text()
    for package, version in NPM_PACKAGES.items():
        head = head.replace("{" + package + "}", version)
    lines = [f"{package}: {licences(work, package)}" for package in FONT_PACKAGES]
    path.write_text(head + "\n".join(lines) + "\n")
