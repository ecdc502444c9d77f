"""What of a hub's model is fetched, how much that is, and the fetching; only ever on request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dcmerge.checkpoints.hub.names import COMMIT, HubName, cache_folder, cached, library, unfinished
from dcmerge.checkpoints.modules import is_module
from dcmerge.checkpoints.paths import reason, shown
from dcmerge.checkpoints.suffixes import SAFETENSORS_SUFFIX, STATE_DICT_SUFFIXES, weights_suffix
from dcmerge.errors import InputError

Progress = Callable[[float, str], None]
#: Settings and vocabularies. Code, pictures and other libraries' weights are never fetched.
_COMPANIONS = (".json", ".txt", ".model")
#: One model may lie there several times: the first kind of these that there is is fetched, as loaders do.
_WEIGHTS = tuple(
    re.compile(pattern)
    for end in ("safetensors", "bin")
    for name in ("adapter_model", "model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model")
    for pattern in (rf"{name}\.{end}", rf"{name}-\d+-of-\d+\.{end}")
)
#: States of a training that are no weights.
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.(bin|pt|pth)")
_SAFE = re.compile(r"[\w.+@ -]+(?:/[\w.+@ -]+)*")


@dataclass(frozen=True)
class Plan:
    """What must be fetched of a model: file to bytes (0 where the hub does not tell), at one commit."""

    name: HubName
    commit: str
    files: Mapping[str, int]

    @property
    def nbytes(self) -> int:
        return sum(self.files.values())


def located(text: str, *, whole: bool = False, download: bool = False, progress: Progress | None = None) -> Path:
    """The file or folder of ``hub:owner/name[@revision][/path]`` on this machine.

    What the library's cache has is taken, without a question to the net; what it lacks is fetched where ``download`` allows it.
    ``whole``: every model in the repository, for a folder that is searched. Raises InputError where there is no such model, where
    it may not or cannot be fetched, and for a text that is no name.
    """
    name = HubName.of(text)
    if found := cached(name, whole=whole):
        return found[0]
    if not download:
        told = f"{name.text} is not in the hub's cache on this machine, at least not all of it, and downloads are not allowed"
        raise InputError(told, "download")
    return fetched(planned_fetch(name, whole=whole), progress, whole=whole)


def planned_fetch(name: HubName, *, whole: bool = False) -> Plan:
    """What the hub has of a model; asks the net. Raises InputError where it cannot be reached or has no such weights."""
    with _plain_errors(name):
        hub = library()
        info = hub.HfApi(endpoint=library(".constants").ENDPOINT).model_info(
            name.repository, revision=name.revision, files_metadata=True
        )
        sizes = {one.rfilename: int(one.size or 0) for one in info.siblings or () if _SAFE.fullmatch(one.rfilename)}
        commit = str(info.sha)
    if not COMMIT.fullmatch(commit):
        raise InputError(f"{name.text}: expected the hash of a commit from the hub, got {shown(commit)!r:.80}")
    wanted = chosen_files([file for file in sizes if ".." not in file.split("/")], name.inside, whole=whole)
    if not any(weights_suffix(file) for file in wanted):
        raise InputError(f"{name.text} holds no weights that can be read ({SAFETENSORS_SUFFIX}, or PyTorch's)")
    return Plan(name, commit, {file: sizes[file] for file in wanted})


def fetched(plan: Plan, progress: Progress | None = None, *, whole: bool = False) -> Path:
    """Fetch what a plan lists into the library's cache; files that are there already are not fetched again.

    Raises InputError where the hub cannot be reached, and where the branch moved since the plan was made.
    """
    done, waiting = 0, unfinished(plan.name, plan.commit)
    with suppress(OSError):  # without it an interrupted fetch of several models may count as complete
        waiting.parent.mkdir(parents=True, exist_ok=True)
        waiting.write_text(json.dumps(sorted(plan.files)))
    for file, size in plan.files.items():
        start, text = done, f"fetching {file} of {plan.name.repository}"
        tell = _teller(progress, start, plan.nbytes, text)
        with _plain_errors(plan.name):
            library().hf_hub_download(
                plan.name.repository,
                file,
                revision=plan.name.revision,
                cache_dir=cache_folder(),
                endpoint=library(".constants").ENDPOINT,
                tqdm_class=_bar(tell),
            )
        done = start + size
    with suppress(OSError):
        waiting.unlink()
    found = cached(plan.name, whole=whole)
    if found is None or found[1] != plan.commit:
        raise InputError(f"{plan.name.text} changed on the hub while it was fetched: fetch it again")
    return found[0]


def chosen_files(files: Sequence[str], inside: str = "", *, whole: bool = False) -> list[str]:
    """Of the files in a repository those to fetch: settings and vocabularies first, weights last.

    Weights are safetensors; pickles only where a folder has none. ``inside`` is a file or a folder; with ``whole`` every folder
    below it counts, else its own files and those of sentence-transformers' modules.
    """
    one = inside if inside in files else ""
    top = str(PurePosixPath(inside).parent) if one else inside or "."
    by_folder: dict[str, list[str]] = {}
    for file in files:
        by_folder.setdefault(str(PurePosixPath(file).parent), []).append(file)
    wanted: list[str] = []
    for folder, own in by_folder.items():
        below = PurePosixPath(folder)
        inside_model = str(below.parent) == top and is_module(below.name)
        if folder != top and not inside_model and not (whole and (top == "." or below.is_relative_to(top))):
            continue
        wanted += [one] if one and folder == top else _weights(own, all_of_them=whole)
        wanted += [file for file in own if file.endswith(_COMPANIONS)]
    return sorted(dict.fromkeys(wanted), key=lambda file: (bool(weights_suffix(file)), not file.endswith(".json"), file))


def _weights(files: Sequence[str], *, all_of_them: bool) -> list[str]:
    """The weights among the files of one folder: of one model, or all of the better kind."""
    names = {file: PurePosixPath(file).name for file in files}
    for suffixes in ((SAFETENSORS_SUFFIX,), STATE_DICT_SUFFIXES):
        there = [file for file in files if file.endswith(suffixes) and not _NO_WEIGHTS.fullmatch(names[file])]
        for pattern in () if all_of_them else _WEIGHTS:
            if known := [file for file in there if pattern.fullmatch(names[file])]:
                return known
        if there:
            return there
    return []


def _teller(progress: Progress | None, start: int, total: int, text: str) -> Callable[[int], None]:
    def tell(done: int) -> None:
        if progress:
            progress(min(1.0, (start + done) / total) if total else 0.0, text)

    tell(0)
    return tell


def _bar(tell: Callable[[int], None]) -> type:
    """The library reports what it has fetched to a progress bar: one that draws nothing and tells."""

    class Bar(library(".utils").tqdm):
        def __init__(self, *args: Any, **settings: Any) -> None:
            settings.pop("name", None)
            super().__init__(*args, **{**settings, "disable": True})
            self.fetched = settings.get("initial") or 0

        def update(self, n: float | None = 1) -> None:
            self.fetched += n or 0
            tell(int(self.fetched))

    return Bar


@contextmanager
def _plain_errors(name: HubName) -> Iterator[None]:
    """The library's errors as one sentence each."""
    errors = library(".errors")
    failures = (OSError, ValueError, errors.EntryNotFoundError, *errors.HfHubHTTPError.__bases__)
    model = shown(name.repository)
    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError:
        told = f"{model} is given only to who accepted its conditions: do so on its page, then log in (hf auth login)"
        raise InputError(told) from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"The hub has no model {model}, or it is private: then log in (hf auth login).") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{model} has no branch, tag or commit {shown(name.revision)} on the hub.") from None
    except errors.OfflineModeIsEnabled:
        raise InputError(f"{name.text} must be fetched, and HF_HUB_OFFLINE keeps the hub's library off the net.") from None
    except failures as error:
        raise InputError(f"Cannot fetch {name.text} from the hub: {reason(error)}.") from None
