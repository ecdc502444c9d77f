"""``python -m dcmerge.sets.layouts.apart``: searches folders in a process of its own, under limits of time and memory.

A folder may hold a file that takes the reader hours or all memory. Here it ends this process and nothing else: see ``searcher``.
Every line on stdin is a question; on stdout the path that is worked on comes before the work, and then the answer. All are JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dcmerge.checkpoints import Roots
from dcmerge.errors import InputError
from dcmerge.runtime.limits import limit_memory, limit_seconds
from dcmerge.runtime.peak import resident_bytes
from dcmerge.sets.layouts.peek import signature_text, watch
from dcmerge.sets.layouts.search import search

#: For one file: a header of 100 MB, which is the largest that is read, takes a tenth of either.
SECONDS, MEMORY = 10, 2 << 30
#: A process that remembers more than this makes room for a new one.
_MOST_REMEMBERED = 1 << 30


def main() -> None:
    """Answer until stdin ends."""
    limit_memory(MEMORY)
    watch.before = _announce
    _say({"ready": True})
    for line in sys.stdin:
        _say(_answer(json.loads(line)))
        if (resident_bytes() or 0) > _MOST_REMEMBERED:
            return


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    watch.refused.update({(path, signature): why for path, signature, why in question["refused"]})
    roots = question["roots"]
    _announce(Path(question["folder"]))
    try:
        found = search(question["folder"], None if roots is None else Roots(roots))
        return {"found": found.to_data()}
    except InputError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": f"searching {question['folder']} needs more than {MEMORY >> 30} GiB of memory"}


def _announce(path: Path) -> None:
    limit_seconds(SECONDS)
    _say({"at": str(path), "signature": signature_text(path)})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
