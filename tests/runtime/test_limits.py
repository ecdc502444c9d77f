"""What memory is free, by the files in which the system tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge.runtime import limits


def group(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_in_bytes", "@").replace("_", ".", 1).replace("@", "_in_bytes")).write_text(f"{content}\n")
    return folder


def test_a_container_may_take_what_is_below_its_limit_and_what_it_caches(tmp_path: Path) -> None:
    second = group(tmp_path / "v2", memory_max=1000, memory_current=700, memory_stat="anon 500\ninactive_file 150")
    first = group(
        tmp_path / "v1",
        memory_limit_in_bytes=1000,
        memory_usage_in_bytes=900,
        memory_stat="inactive_file 1\ntotal_inactive_file 50",
    )
    assert limits._free_in(second) == 450 and limits._free_in(first) == 150
    assert limits._free_in(group(tmp_path / "none", memory_max="max", memory_current=700, memory_stat="")) is None
    assert limits._free_in(tmp_path / "nowhere") is None


def test_the_tightest_of_the_limits_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (limits.free_memory() or 1) > 0
    tight = group(tmp_path, memory_max=1000, memory_current=700, memory_stat="inactive_file 150")
    monkeypatch.setattr(limits, "_cgroups", lambda: [tmp_path / "nowhere", tight])
    monkeypatch.setattr(limits, "_available", lambda: 10_000)
    assert limits.free_memory() == 450
