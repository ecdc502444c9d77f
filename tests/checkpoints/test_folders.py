"""A folder appears whole or not at all, and takes nobody else's place."""

import pytest

from dcmerge.checkpoints import new_folder, write_text
from dcmerge.errors import InputError


def fill(path, text="new", **how):
    with new_folder(path, **how) as folder:
        write_text(folder / "a.txt", text)


def test_the_folder_appears_when_the_block_ends(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        write_text(folder / "a.txt", "ä")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out/a.txt").read_text(encoding="utf-8") == "ä" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_a_failure_all_is_as_it_was(tmp_path, error):
    fill(tmp_path / "old", "old")
    for name in ("old", "new"):
        with pytest.raises(error), new_folder(tmp_path / name, ours=lambda name: True) as folder:
            write_text(folder / "a.txt", "half")
            raise error
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and (tmp_path / "old/a.txt").read_text() == "old"


def test_only_what_is_ours_is_replaced(tmp_path):
    fill(tmp_path / "out", "old")
    with pytest.raises(InputError, match="exists already"):
        fill(tmp_path / "out")
    with pytest.raises(InputError, match="not a folder that a merge wrote"):
        fill(tmp_path / "out", ours=lambda name: name == "b.txt")
    fill(tmp_path / "out", ours=lambda name: name == "a.txt")
    assert (tmp_path / "out/a.txt").read_text() == "new"
    (tmp_path / "out/a.txt").unlink()
    (tmp_path / "out/a.txt").mkdir()
    with pytest.raises(InputError, match="not a folder that a merge wrote"):
        fill(tmp_path / "out", ours=lambda name: True)


@pytest.mark.parametrize(
    ("name", "text"), [("file", "not a folder"), ("link", "not a folder"), ("no/out", "no folder"), ("a\0", "path of a")]
)
def test_targets_that_are_something_else(tmp_path, name, text):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match=text):
        fill(f"{tmp_path}/{name}", ours=lambda name: True)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}
