"""``python -m dcmerge.checkpoints.pickles.apart OLD NEW``: reads a pickle in a process of its own, under limits.

The limits are a second wall: a file that asks for endless memory or time ends this process and nothing else. It prints one
line of JSON: what was found, or why not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from dcmerge.checkpoints.base import TensorInfo
from dcmerge.checkpoints.dtypes import CODES
from dcmerge.checkpoints.paths import reason, shown
from dcmerge.checkpoints.pickles.harvest import Harvest, harvest
from dcmerge.checkpoints.pickles.reading import PickleFile
from dcmerge.checkpoints.pickles.vocabulary import Refused
from dcmerge.checkpoints.writing import write_safetensors
from dcmerge.errors import InputError
from dcmerge.runtime.limits import address_space

#: Beside what Python and torch take: a plain pickle is read whole, and its largest tensor is copied.
_MEMORY, _MEMORY_PER_BYTE = 1 << 30, 3
#: Seconds of processor time: for the pickle, and for the numbers, which are read, written and nothing else.
_SECONDS, _BYTES_A_SECOND = 60, 20 << 20
#: What a header may take beside the numbers.
_HEADER = 200 << 20
_LONGEST = 600


def seconds_for(size: int) -> int:
    """Processor time that a file of so many bytes gets."""
    return _SECONDS + size // _BYTES_A_SECOND


def memory_for(size: int) -> int:
    """Bytes that a file of so many bytes gets beside what is loaded already."""
    return _MEMORY + _MEMORY_PER_BYTE * size


def limit(size: int) -> list[str]:
    """Bound this process's memory, time and files; the names of the limits that this system has no way to set."""
    try:
        import resource
    except ImportError:  # Windows
        return ["memory", "processor time", "size of the file written"]
    wanted = {
        "processor time": (resource.RLIMIT_CPU, seconds_for(size)),
        "size of the file written": (resource.RLIMIT_FSIZE, 4 * size + _HEADER),
        "core dump": (resource.RLIMIT_CORE, 0),
    }
    in_use = address_space()
    lacking = [] if in_use else ["memory"]
    if in_use:
        wanted["memory"] = (resource.RLIMIT_AS, in_use + memory_for(size))
    for what, (which, bound) in wanted.items():
        try:
            resource.setrlimit(which, (bound, bound))
        except (ValueError, OSError):  # a lower limit of the user's own is in force
            if what == "memory":
                lacking.append(what)
    return lacking


def main(old: Path, new: Path) -> dict[str, object]:
    """Read ``old`` under limits and write ``new``; what there is to say of it, or {"error": one sentence}."""
    lacking = limit(old.stat().st_size)
    try:
        file = PickleFile(old)
        found = harvest(file)
        _write(file, found, new)
    except Refused as error:
        return {"refused": shown(error)[:_LONGEST]}
    except InputError as error:
        return {"error": shown(error)[:_LONGEST]}
    except MemoryError:
        return {"error": f"it needs more memory than the {memory_for(old.stat().st_size) >> 20} MiB that such a file may take"}
    except Exception as error:  # A damaged pickle fails in many ways, none of them listed anywhere.
        return {"error": f"it is damaged or no pickle of PyTorch ({shown(reason(error))[:_LONGEST]})"}
    told = [shown(name)[:80] for name in found.left_out[:5]] + ["..."] * (len(found.left_out) > 5)
    return {"tensors": len(found.tensors), "source": found.source, "left_out": told, "lacking": lacking}


def _write(file: PickleFile, found: Harvest, new: Path) -> None:
    infos = {name: TensorInfo(tensor.shape, tensor.dtype) for name, tensor in found.tensors.items()}
    for name, info in infos.items():
        if info.dtype not in CODES:
            raise Refused(f"the tensor {shown(name)} of {info.dtype}, which safetensors cannot hold")

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in found.tensors.items():
            yield name, file.read(tensor)

    write_safetensors(new, tensors(), infos)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
