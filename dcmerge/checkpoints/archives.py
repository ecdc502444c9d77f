"""The zip archive that torch.save writes: where each storage lies in it, and the same archive without them for torch."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dcmerge.checkpoints.paths import reason, shown
from dcmerge.errors import InputError

ZIP_MARK = b"PK\x03\x04"
#: A record a storage, and a pickle that names them: more of either is no model.
_MOST_RECORDS, _LONGEST_PICKLE = 1_000_000, 256 << 20
_PICKLE, _DATA = "data.pkl", "data/"
_ROOT = "archive/"
#: What a damaged archive makes of Python's reader.
_ERRORS = (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, RuntimeError)


@dataclass(frozen=True)
class Archive:
    """``skeleton``: the archive with empty storages; ``places``: where a storage begins there -> (start, bytes) in the file."""

    skeleton: bytes
    places: Mapping[int, tuple[int, int]]


def read_archive(path: Path) -> Archive:
    """The pickle of an archive and the places of its storages; nothing else is read, and nothing is unpacked.

    torch.save stores its records uncompressed, one a storage, beside ``data.pkl``. An archive of another kind could unpack to any
    size. Raises InputError, which names the file.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            if len(records) > _MOST_RECORDS:
                raise _refused(path, f"it has {len(records)} records")
            root, content = _pickle(archive, path)
            order = f"{root}byteorder"
            if order in archive.NameToInfo and _stored(archive, order, path, 100) != b"little":
                raise _refused(path, "its numbers are in big-endian order")
            begins = f"{root}{_DATA}"
            inside = {one.filename.removeprefix(begins): one for one in records if one.filename.startswith(begins)}
            places = {key: _place(file, one, size, path) for key, one in inside.items()}
    except _ERRORS as error:
        raise error if isinstance(error, InputError) else _refused(path, reason(error)) from None
    skeleton, starts = _skeleton(content, places)
    return Archive(skeleton, {start: places[key] for key, start in starts.items()})


def read_pickle(path: Path, limit: int) -> bytes:
    """The pickle of an archive where it has at most so many bytes; InputError of anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _pickle(archive, path, limit)[1]
    except _ERRORS as error:
        raise error if isinstance(error, InputError) else _refused(path, reason(error)) from None


def data_start(file: BinaryIO, record: zipfile.ZipInfo) -> int | None:
    """Where a stored record's bytes begin: behind a header of its own, which repeats the name. None where there is no header."""
    file.seek(record.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != ZIP_MARK:
        return None
    name, extra = struct.unpack("<HH", header[26:30])
    return record.header_offset + 30 + name + extra


def _pickle(archive: zipfile.ZipFile, path: Path, limit: int = _LONGEST_PICKLE) -> tuple[str, bytes]:
    """The folder that all records are in, and the pickle in it."""
    found = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith(f"/{_PICKLE}")]
    if len(found) != 1:
        raise _refused(path, f"it holds no single {_PICKLE}")
    return found[0].removesuffix(_PICKLE), _stored(archive, found[0], path, limit)


def _stored(archive: zipfile.ZipFile, name: str, path: Path, limit: int) -> bytes:
    record = archive.getinfo(name)
    if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
        raise _refused(path, f"its record {shown(name[:80])} is compressed")
    if record.file_size > min(limit, path.stat().st_size):
        raise _refused(path, f"its record {shown(name[:80])} claims {record.file_size} bytes")
    return archive.read(name)


def _place(file: BinaryIO, record: zipfile.ZipInfo, size: int, path: Path) -> tuple[int, int]:
    name = shown(record.filename[:80])
    if record.compress_type != zipfile.ZIP_STORED:
        raise _refused(path, f"its record {name} is compressed")
    start = data_start(file, record)
    if start is None or start + record.file_size > size:
        raise _refused(path, f"its record {name} claims more bytes than the file has")
    return start, record.file_size


def _skeleton(content: bytes, keys: Mapping[str, object]) -> tuple[bytes, dict[str, int]]:
    """An archive of this pickle with an empty record for each key, and where each of those begins."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        # torch guesses the places of an archive that tells its version of the format; here it looks them up.
        archive.writestr(f"{_ROOT}version", "3\n")
        archive.writestr(f"{_ROOT}{_PICKLE}", content)
        for key in keys:
            archive.writestr(zipfile.ZipInfo(f"{_ROOT}{_DATA}{key}"), b"")
        starts = {one.filename.removeprefix(f"{_ROOT}{_DATA}"): data_start(made, one) or 0 for one in archive.infolist()}
    return made.getvalue(), {key: starts[key] for key in keys}


def _refused(path: Path, why: str) -> InputError:
    return InputError(f"Expected a PyTorch state dict, got {shown(path)}, which is damaged or not one ({why}).")
