"""Plugins for tests: files that register methods, good ones and bad ones."""

from __future__ import annotations

from pathlib import Path

HEAD = """
from typing import Annotated
import torch
from dcmerge import Layer, Number, merging_method

ABOUT = dict(title="Mine", idea="The mean, times a factor.", formula="x", source="a test", everywhere=True)
"""
#: The mean times a factor, as a method called "mine".
GOOD = f"""{HEAD}
@merging_method("mine", **ABOUT)
def mine(layer: Layer, *, factor: Annotated[float, Number("Factor", "What the mean is multiplied by.", 0, 4, 0.5)] = 2.0):
    return layer.mean() * factor
"""
#: Files that cannot be loaded, and words of the sentence that says why.
BAD: dict[str, tuple[str, str]] = {
    "not_python": ("this is no Python\n", "plugin not_python.py: expected Python, got invalid syntax in line 1"),
    "bytes": ("\0", "plugin bytes.py: expected Python, got source code string cannot contain null bytes"),
    "raises": (f"{GOOD}\n1 / 0\n", "plugin raises.py: line 12 raised ZeroDivisionError: division by zero"),
    "leaves": (f"{GOOD}\nimport sys; sys.exit(3)\n", "plugin leaves.py: line 12 raised SystemExit: 3"),
    "empty": ("x = 1\n", "plugin empty.py: expected at least one function under merging_method, got none"),
    "taken": (GOOD + GOOD.replace('"mine"', '"ties"'), "plugin taken.py: two methods are called 'ties'"),
    "twice": (GOOD + GOOD, "plugin twice.py: two methods are called 'mine'"),
    "undeclared": (
        f'{HEAD}@merging_method("mine", **ABOUT)\ndef mine(layer, *, factor=2.0): ...\n',
        "plugin undeclared.py: mine: parameter factor needs one Number, Choice or Flag and a default",
    ),
    "untold": (
        f'{HEAD}@merging_method("mine", title="Mine")\ndef mine(layer): ...\n',
        "plugin untold.py: mine: expected title, idea, formula, source, got no idea and no formula and no source",
    ),
    "unknown_field": (GOOD.replace("**ABOUT", "colour='red', **ABOUT"), "got the unknown field 'colour'"),
    "odd_slug": (GOOD.replace('"mine"', '"../mine"'), "expected a slug of small letters, digits and _, got '../mine'"),
    "odd_need": (GOOD.replace("**ABOUT", "needs=('gold',), **ABOUT"), "mine: expected needs among weights, base"),
    "bad_default": (GOOD.replace("= 2.0", "= 9.0"), "mine: the default of factor: expected a number in [0, 4], got 9.0"),
    "reserved": (GOOD.replace("factor:", "scale:"), "mine: expected another name for the parameter scale"),
}


def write_plugin(folder: Path, text: str = GOOD, name: str = "mine.py") -> Path:
    """The file of a plugin."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def install(folder: Path, package: str, text: str, module: str | None = None) -> None:
    """A package as an installer leaves it, with an entry point that names its module; ``folder`` is on Python's path."""
    module = module or package.replace("-", "_")
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[dcmerge.methods]\nmine = {module}\n")


#: It takes one expert for all, adds where it should not, and marks its result on what is shared.
UNSOUND = f"""{HEAD}
@merging_method("unsound", **ABOUT)
def unsound(layer: Layer):
    if layer.is_matrix:
        layer.factors(1)[0].s.mul_(2)
    return layer.dense_deltas()[0] + 1
"""
