"""``convert``: old and pickled files as safetensors, and CLIP under the other naming scheme."""

from __future__ import annotations

import os
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dcmerge.checkpoints import open_checkpoint
from dcmerge.checkpoints.schemes import hugging_face_weights
from tests.cli.conftest import Run

VISION = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}


def clip() -> open_clip.CLIP:
    return open_clip.CLIP(8, VISION, TEXT)


class Runs:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("hacked",)


def test_a_pickled_module_becomes_a_checkpoint(run: Run, tmp_path: Path) -> None:
    model = clip()
    torch.save(model, tmp_path / "old.pt")
    done = run("convert", tmp_path / "old.pt", tmp_path / "new.safetensors", "--json")
    assert done.code == 0 and done.json["source"] == "the module open_clip.model.CLIP"
    wanted = model.state_dict()
    assert done.json["tensors"] == len(wanted) == len(open_checkpoint(tmp_path / "new.safetensors").infos)
    written = load_file(tmp_path / "new.safetensors")
    assert all(torch.equal(written[name], value) for name, value in wanted.items())


def test_what_the_opening_refuses_names_this_command(run: Run, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "old.pt")
    run("inspect", "--base", tmp_path / "old.pt", "--expert", f"a={tmp_path / 'old.pt'}").assert_refused(
        "torch.nn.modules.linear.Linear", f"python -m dcmerge convert {tmp_path / 'old.pt'} NEW.safetensors"
    )


def test_the_format_before_1_6_under_other_names(run: Run, tmp_path: Path) -> None:
    model = clip()
    torch.save(model.state_dict(), tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    done = run("convert", tmp_path / "old.bin", tmp_path / "new.safetensors", "--to", "hugging_face")
    assert done.code == 0 and "Wrote" in done.out
    wanted, written = hugging_face_weights(model.state_dict()), load_file(tmp_path / "new.safetensors")
    assert set(written) == set(wanted) and all(torch.equal(written[name], value) for name, value in wanted.items())
    back = run("convert", tmp_path / "new.safetensors", tmp_path / "back.safetensors", "--to", "open_clip")
    assert back.code == 0
    found = load_file(tmp_path / "back.safetensors")
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_refusals_are_one_line_and_write_nothing(run: Run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Runs()}, "bad.pt")
    run("convert", "bad.pt", "new.safetensors").assert_refused("posix.mkdir", "nothing was executed or written")
    run("convert", "gone.pt", "new.safetensors").assert_refused("There is no file")
    run("convert", "bad.pt", "new.pt").assert_refused("expected a file name that ends in .safetensors")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "bad.pt").read_bytes()[:100])
    run("convert", "cut.pt", "new.safetensors").assert_refused("damaged or no pickle")
    save_file({"visual.attnpool.k": torch.ones(2)}, "resnet.safetensors")
    run("convert", "resnet.safetensors", "new.safetensors", "--to", "hugging_face").assert_refused("visual.attnpool.k")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pt", "cut.pt", "resnet.safetensors"]


def test_an_existing_file_is_kept_unless_forced(run: Run, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "old.pt")
    (tmp_path / "new.safetensors").write_bytes(b"mine")
    run("convert", tmp_path / "old.pt", tmp_path / "new.safetensors").assert_refused("--force")
    assert (tmp_path / "new.safetensors").read_bytes() == b"mine"
    assert run("convert", tmp_path / "old.pt", tmp_path / "new.safetensors", "--force").code == 0
    assert set(load_file(tmp_path / "new.safetensors")) == {"weight", "bias"}
