"""Methods from outside: files, installed packages, scripts; and what is said of those that are no methods."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dcmerge import InputError, TaskVectors, load_plugin, merge, merging_method, methods
from tests.builders import full_set, merged_dense, random_deltas
from tests.plugins import BAD, GOOD, HEAD, install, write_plugin

pytestmark = pytest.mark.usefixtures("own_register")
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def two(tmp_path: Path) -> TaskVectors:
    return full_set(tmp_path / "two", random_deltas(2))


def test_a_file_brings_a_method_that_runs_like_any_other(tmp_path: Path, two: TaskVectors) -> None:
    path = write_plugin(tmp_path)
    [mine] = load_plugin(path)
    assert methods()["mine"] == mine and list(methods())[-1] == "mine"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert mine.origin.to_dict() == {"name": "mine.py", "sha256": sha256} and mine.origin.label == "from mine.py"
    average = merged_dense(two, "average")
    for name, delta in merged_dense(two, "mine", {"factor": 3.0}).items():
        torch.testing.assert_close(delta, 3 * average[name])
    with pytest.raises(InputError, match=r"factor: expected a number in \[0, 4\], got 5"):
        merge(two, "mine", factor=5)
    assert all(one.origin is None for slug, one in methods().items() if slug != "mine")


def test_a_file_runs_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    path = write_plugin(tmp_path, f"{GOOD}\nprint('run')\n")
    first, second = load_plugin(path), load_plugin(path)
    assert first[0].function is second[0].function
    write_plugin(tmp_path, GOOD.replace('"mine"', '"other"'))
    assert [one.slug for one in load_plugin(path)] == ["other"]
    assert "mine" not in methods(), "what the file no longer has is forgotten"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_sentence_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    text, words = BAD[name]
    before, modules = methods(), set(sys.modules)
    with pytest.raises(InputError) as refused:
        load_plugin(write_plugin(tmp_path, text, f"{name}.py"))
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert methods() == before and not {one for one in set(sys.modules) - modules if one.startswith("dcmerge_plugin")}


def test_what_is_no_python_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    for path in (tmp_path / "none.py", tmp_path / "folder.py"):
        with pytest.raises(InputError, match=f"plugin: expected a Python file, got no file at .*{path.name}"):
            load_plugin(path)
    for path in ("mine.txt", "mine", "", "a\0.py"):
        with pytest.raises(InputError, match=r"plugin: expected a Python file, whose name ends in \.py"):
            load_plugin(path)


def test_another_content_than_expected_is_not_run(tmp_path: Path) -> None:
    path = write_plugin(tmp_path, f"{GOOD}\nraise SystemExit('it ran')\n")
    with pytest.raises(InputError, match=f"plugin: expected mine.py with sha256 {'0' * 64}, got .*mine.py with "):
        load_plugin(path, sha256="0" * 64)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return layer.mean() / 0 + [][1]", r"mine \(from mine.py\): .*: line 9 raised IndexError: list index out of range"),
        ("return torch.zeros(3, 3, 3)", r"mine \(from mine.py\): .*: expected a tensor of shape \(.*\), got \(3, 3, 3\)"),
        ("return None", r"mine \(from mine.py\): .*: expected a tensor of shape \(.*\), got NoneType"),
    ],
)
def test_a_mistake_in_a_method_is_told_in_one_sentence(tmp_path: Path, two: TaskVectors, body: str, words: str) -> None:
    load_plugin(write_plugin(tmp_path, f'{HEAD}@merging_method("mine", **ABOUT)\ndef mine(layer):\n    {body}\n'))
    with pytest.raises(InputError, match=words):
        merge(two, "mine")


def test_a_script_that_registers_a_method_by_itself_is_its_origin(two: TaskVectors) -> None:
    @merging_method("here", title="Here", idea="The mean.", formula="x", source="a test")
    def here(layer):
        return layer.mean()

    origin = methods()["here"].origin
    assert origin.to_dict() == {"name": "test_plugins.py", "sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}


def test_installed_packages_are_found_and_a_broken_one_is_left_out(tmp_path: Path) -> None:
    install(tmp_path, "merge-tools", GOOD)
    install(tmp_path, "broken-tools", "import no_such_module\n")
    install(tmp_path, "empty-tools", "")
    install(tmp_path, "rival-tools", GOOD.replace('"mine"', '"ties"'))
    code = """
import json, dcmerge
from dcmerge.methods import plugin_notes
known = dcmerge.methods()
foreign = {slug: [one.origin.label, one.origin.sha256] for slug, one in known.items() if one.origin}
print(json.dumps({"foreign": foreign, "known": len(known), "notes": plugin_notes()}))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    sha256 = hashlib.sha256((tmp_path / "merge_tools.py").read_bytes()).hexdigest()
    assert told["foreign"] == {"mine": ["from the package merge-tools", sha256]} and told["known"] == len(methods()) + 1
    assert sorted(told["notes"]) == [
        "The methods of the package broken-tools are left out: raised ModuleNotFoundError: No module named 'no_such_module'",
        "The methods of the package empty-tools are left out: expected methods in the module empty_tools, got none",
        "The methods of the package rival-tools are left out: two methods are called 'ties'",
    ]
    assert sorted(done.stderr.splitlines()) == sorted(told["notes"]), "who starts it reads the same"
