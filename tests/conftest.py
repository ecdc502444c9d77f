"""Settings that hold for every test."""

import os
import tempfile
from pathlib import Path

# Before torch is imported: threads are process-wide, and on a busy machine one is faster than two.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
# Factors of a test's models are of no use to anybody else; the tests of the cache name a folder of their own.
os.environ["DCMERGE_CACHE"] = "off"
# Jobs of the tests stay among themselves; the tests of jobs name a folder each.
os.environ["DCMERGE_JOBS"] = tempfile.mkdtemp(prefix="dcmerge-jobs-")
os.environ["DCMERGE_SETS"] = tempfile.mkdtemp(prefix="dcmerge-sets-")
# No measurement of this processor decides what a test finds.
os.environ["DCMERGE_LOOKS"] = "float32"
# No test may leave the machine: what is not on it is a mistake.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis  # noqa: E402  (after the thread settings)
import pytest  # noqa: E402

# No deadline per example: the first one pays for imports and cold caches. The same examples on every machine.
hypothesis.settings.register_profile("deterministic", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("deterministic")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below tests/browser carries the marker `browser`, and runs after the quick tests."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent / "browser"):
            item.add_marker("browser")
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture
def own_register(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this test registers is forgotten after it."""
    from dcmerge.methods import registry

    monkeypatch.setattr(registry, "_METHODS", registry.methods())
