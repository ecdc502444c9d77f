"""``hub:owner/name[@revision][/file or folder]``, and where the hub's library keeps such a model on this machine.

The cache's layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from dcmerge.checkpoints.modules import module_folders
from dcmerge.checkpoints.paths import reason, shown
from dcmerge.checkpoints.suffixes import SAFETENSORS_SUFFIX, weights_suffix
from dcmerge.errors import InputError

PREFIX = "hub:"
MAIN = "main"
_PART = r"[A-Za-z0-9_][\w.-]*"
_FORM = re.compile(rf"({_PART}/{_PART})(?:@(refs/(?:pr|convert)/{_PART}|{_PART}))?((?:/[\w.+-]+)*)/?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
#: A model's folder in the cache, and the file that names the shards of one.
_FOLDER, _INDEX = "models--", ".index.json"
_SHARD = re.compile(r"(?P<before>.+)-\d+-of-(?P<all>\d+)\.(?:safetensors|bin)")


@dataclass(frozen=True)
class HubName:
    """A model of the hub: "owner/name", a branch, tag or commit of it, and a file or folder inside; empty is the whole."""

    repository: str
    revision: str = MAIN
    inside: str = ""

    @classmethod
    def of(cls, text: str) -> Self:
        """From ``hub:owner/name@revision/folder``, with or without ``hub:``; raises InputError for anything else."""
        match = _FORM.fullmatch(text.removeprefix(PREFIX).strip())
        if match is None or ".." in text or len(text) > 500:
            raise InputError(f"expected hub:owner/name or hub:owner/name@revision, got {shown(text)!r:.200}")
        return cls(match[1], match[2] or MAIN, match[3].strip("/"))

    @property
    def text(self) -> str:
        """As ``of`` reads it."""
        return f"{PREFIX}{self.repository}@{self.revision}{f'/{self.inside}' if self.inside else ''}"

    def at(self, commit: str) -> HubName:
        """The same at one commit, which never changes again."""
        return replace(self, revision=commit)


def is_hub(text: object) -> bool:
    """Whether a text that stands where a path may stand is a name of the hub's."""
    return isinstance(text, str) and text.startswith(PREFIX)


def library(part: str = "") -> Any:
    """``huggingface_hub``, or a module of it; raises InputError where it is not installed."""
    try:
        return import_module(f"huggingface_hub{part}")
    except ImportError:
        raise InputError(
            "models of the Hugging Face hub need the package huggingface_hub: pip install 'dcmerge[hf]'",
        ) from None


def cache_folder() -> Path:
    """Where the library keeps what it has fetched: HF_HUB_CACHE, or below HF_HOME."""
    return Path(library(".constants").HF_HUB_CACHE)


def cached(name: HubName, *, whole: bool = False) -> tuple[Path, str] | None:
    """(file or folder, commit) of a model that is on this machine in full; None where it is not. Nothing is asked of the net.

    ``whole``: the folder may hold several models. Raises InputError where a link in it leaves the model's part of the cache.
    """
    model = _folder_of(name)
    commit = name.revision if COMMIT.fullmatch(name.revision) else _commit(model / "refs" / name.revision)
    place = model / "snapshots" / commit / name.inside
    if not commit or not place.exists() or not _is_complete(place, whole) or _waits(name, commit, place, whole):
        return None
    _check_links(place, model)
    return place, commit


def _folder_of(name: HubName) -> Path:
    return cache_folder() / f"{_FOLDER}{name.repository.replace('/', '--')}"


def unfinished(name: HubName, commit: str) -> Path:
    """The file that lists what is being fetched of a model; it is there until everything is."""
    return _folder_of(name) / f".dcmerge-{commit}.json"


def _waits(name: HubName, commit: str, place: Path, whole: bool) -> bool:
    """Whether a fetch was interrupted that would have brought more of what lies here."""
    try:
        files = json.loads(unfinished(name, commit).read_bytes())
    except (OSError, ValueError):
        return False
    top = _folder_of(name) / "snapshots" / commit
    paths = [top / file for file in files if isinstance(file, str)] if isinstance(files, list) else []
    wanted = [path for path in paths if path == place or path.parent == place or (whole and path.is_relative_to(place))]
    return not all(path.exists() for path in wanted)


def name_in_cache(path: Path) -> str | None:
    """The hub's name of a file or folder in the library's cache, with its commit; None of any other path."""
    text = os.path.abspath(path)
    if f"{os.sep}{_FOLDER}" not in text:
        return None
    try:
        cache = os.path.abspath(cache_folder())
    except InputError:
        return None
    parts = Path(text).relative_to(cache).parts if Path(text).is_relative_to(cache) else ()
    if len(parts) < 3 or parts[1] != "snapshots" or not COMMIT.fullmatch(parts[2]):
        return None
    owner, mark, name = parts[0].removeprefix(_FOLDER).partition("--")
    found = HubName(f"{owner}/{name}", parts[2], "/".join(parts[3:])).text
    return found if mark and _FORM.fullmatch(found.removeprefix(PREFIX)) else None


def _commit(reference: Path) -> str:
    """The commit that a branch or tag stood for when it was last asked for; empty where it never was."""
    try:
        text = reference.read_text()[:100].strip()
    except (OSError, ValueError):
        return ""
    return text if COMMIT.fullmatch(text) else ""


def _is_complete(place: Path, whole: bool) -> bool:
    """Whether there are weights, and every shard that an index names."""
    if place.is_file():
        return True
    folders = [place, *module_folders(place)]
    files = [file for file in (place.rglob("*") if whole else (f for one in folders for f in one.iterdir())) if file.is_file()]
    kinds = {weights_suffix(file.name) for file in files} - {""}
    read = (SAFETENSORS_SUFFIX,) if SAFETENSORS_SUFFIX in kinds else tuple(kinds)
    indexes = [file for file in files if file.name.endswith(tuple(f"{suffix}{_INDEX}" for suffix in read))]
    counts = Counter((match.group("before"), match.group("all")) for file in files if (match := _SHARD.fullmatch(str(file))))
    numbered = all(count == int(number) for (_, number), count in counts.items())
    return bool(kinds) and numbered and all((index.parent / shard).exists() for index in indexes for shard in _shards(index))


def _shards(index: Path) -> set[str]:
    try:
        return {str(shard) for shard in json.loads(index.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return set()  # opening it says what is wrong


def _check_links(place: Path, model: Path) -> None:
    """The library links files to blobs beside them: a link that leads anywhere else is not its work."""
    own = os.path.realpath(model)
    for file in (place, *(place.rglob("*") if place.is_dir() else ())):
        try:
            inside = Path(os.path.realpath(file, strict=True)).is_relative_to(own)
        except OSError as error:
            raise InputError(f"Cannot open {shown(file)}: {reason(error)}.") from None
        if not inside:
            raise InputError(f"{shown(file)} is a link that leaves the model's part of the download cache.")
