"""How much a piece of work made the process grow."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from dcmerge.runtime import peak
from dcmerge.runtime.peak import PeakMemory, resident_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells through /proc")
def test_memory_that_was_given_back_is_counted() -> None:
    with PeakMemory() as measured:
        large = torch.ones(40 << 20)  # 160 MiB
        time.sleep(0.1)
        del large
    assert 120 << 20 < measured.growth < 400 << 20
    with PeakMemory() as nothing:
        pass
    assert nothing.growth < 32 << 20


def test_where_the_system_does_not_say_it_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(peak, "_STATM", tmp_path / "none")
    assert resident_bytes() is None
    with PeakMemory() as measured:
        pass
    assert measured.growth is None
