"""A file that changes after it was opened is never read: what comes is the state that was opened, or one sentence."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dcmerge.checkpoints import open_checkpoint
from dcmerge.checkpoints.seen import SeenFile, content_digest
from dcmerge.errors import InputError
from tests.checkpoints.builders import save_adapter

CHANGED = "has changed since it was opened"


def state(value: float) -> dict[str, torch.Tensor]:
    return {"large": torch.full((1100, 1100), value), "small": torch.full((3, 2), value)}


def safetensors(folder: Path) -> tuple[Path, Path]:
    save_file(state(1.0), folder / "a.safetensors")
    return folder / "a.safetensors", folder / "a.safetensors"


def state_dict(folder: Path) -> tuple[Path, Path]:
    torch.save(state(1.0), folder / "a.pt")
    return folder / "a.pt", folder / "a.pt"


def shard(folder: Path) -> tuple[Path, Path]:
    for place, (name, value) in enumerate(state(1.0).items()):
        save_file({name: value}, folder / f"m-{place}.safetensors")
    index = {"weight_map": {"large": "m-0.safetensors", "small": "m-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder, folder / "m-0.safetensors"


def adapter(folder: Path) -> tuple[Path, Path]:
    save_adapter(folder / "ad", target_modules=["c_fc"])
    return folder / "ad", folder / "ad" / "adapter_model.safetensors"


def replaced(path: Path) -> None:
    """Another file of the same content, size and time: only its inode tells."""
    status, twin = path.stat(), path.with_name("twin")
    twin.write_bytes(path.read_bytes())
    os.utime(twin, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(twin, path)


def written(path: Path) -> None:
    """The same bytes in their place, as a training writes them."""
    data, before = path.read_bytes(), path.stat().st_mtime_ns
    with open(path, "r+b") as file:
        file.write(data)
    if path.stat().st_mtime_ns == before:  # within one step of the file system's clock
        os.utime(path, ns=(before, before + 1))


def cut(path: Path) -> None:
    """Cut short, its time as it was: mapped pages behind the end would end the process."""
    status = path.stat()
    os.truncate(path, status.st_size // 2)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = (replaced, written, cut)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("build", [safetensors, state_dict, shard, adapter])
def test_a_changed_file_is_neither_read_nor_hashed(
    tmp_path: Path, build: Callable[[Path], tuple[Path, Path]], change: Callable[[Path], None]
) -> None:
    path, file = build(tmp_path)
    checkpoint = open_checkpoint(path)
    name = next(iter(checkpoint.infos))
    checkpoint.read(name)
    change(file)
    with pytest.raises(InputError, match=CHANGED):
        checkpoint.read(name)
    with pytest.raises(InputError, match=CHANGED):
        checkpoint.read_rows(name, 0, 1)
    with pytest.raises(InputError, match=CHANGED):
        checkpoint.fingerprint  # noqa: B018
    if change is not cut:
        assert open_checkpoint(path).fingerprint  # as it is now, it is another opening


@pytest.mark.parametrize("file", ["adapter_config.json", "model.safetensors.index.json"])
def test_settings_and_an_index_decide_the_content_too(tmp_path: Path, file: str) -> None:
    path, _ = adapter(tmp_path) if file.startswith("adapter") else shard(tmp_path)
    checkpoint = open_checkpoint(path)
    written(path / file)
    with pytest.raises(InputError, match=f"{file} {CHANGED}"):
        checkpoint.fingerprint  # noqa: B018


def test_a_change_within_a_read_is_seen(tmp_path: Path) -> None:
    path, _ = safetensors(tmp_path)
    seen = SeenFile.of(path)
    with pytest.raises(InputError, match=CHANGED), seen.reading():
        written(path)
    with pytest.raises(InputError, match=CHANGED), SeenFile.of(path).reading():
        cut(path)


def test_a_digest_is_that_of_the_file_that_was_seen(tmp_path: Path) -> None:
    path, _ = safetensors(tmp_path)
    first = content_digest(path)
    save_file(state(2.0), path)
    assert content_digest(path) != first


@pytest.mark.parametrize("build", [safetensors, state_dict])
def test_rows_are_those_of_the_whole(tmp_path: Path, build: Callable[[Path], tuple[Path, Path]]) -> None:
    path, _ = build(tmp_path)
    values = {"large": torch.arange(1100.0 * 1100).reshape(1100, 1100), "turned": torch.arange(6.0).reshape(2, 3).T}
    if path.suffix == ".pt":
        torch.save(values, path)
    else:
        save_file({name: value.contiguous() for name, value in values.items()}, path)
    checkpoint = open_checkpoint(path)
    for name, value in values.items():
        assert torch.equal(checkpoint.read(name), value)
        assert torch.equal(checkpoint.read_rows(name, 1, 3), value[1:3])


def rezipped(path: Path, compression: int, **changed: bytes) -> Path:
    """An archive with its records written anew; ``changed`` are records by their last name."""
    with zipfile.ZipFile(path) as old:
        records = {name: changed.get(Path(name).name, old.read(name)) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, data in records.items():
            new.writestr(name, data)
    return path


def test_an_archive_that_is_packed_otherwise_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path, _ = state_dict(tmp_path)
    assert torch.equal(open_checkpoint(rezipped(path, zipfile.ZIP_STORED)).tensor("small"), state(1.0)["small"])
    with pytest.raises(InputError, match="is compressed"):
        open_checkpoint(rezipped(path, zipfile.ZIP_DEFLATED))
    state_dict(tmp_path)
    with pytest.raises(InputError, match="big-endian"):
        open_checkpoint(rezipped(path, zipfile.ZIP_STORED, byteorder=b"big"))
