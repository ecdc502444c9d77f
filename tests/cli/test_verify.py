"""``verify`` ends with 3 where something is off."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Run


def test_exit_codes(run: Run, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    assert run("merge", *models, "--method", "average", "--out", str(out)).code == 0
    done = run("verify", str(out))
    assert done.code == 0 and "Nothing is off." in done.out
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    save_file({name: value * 2 for name, value in load_file(out).items()}, out, metadata=metadata)
    done = run("verify", str(out), "--json")
    assert done.code == 3 and done.json["sound"] is False
    assert run("verify", str(tmp_path / "none.safetensors")).code == 2
