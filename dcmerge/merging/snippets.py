"""The same merge as a command for a shell and as Python: what a recipe says, in texts that run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.regrouped import STORED
from dcmerge.errors import InputError
from dcmerge.merging.output import asked_dtype
from dcmerge.merging.recipe import ADAPTER, BASE, DELTA, GIVEN, MODEL, USUAL, Recipe
from dcmerge.methods import method
from dcmerge.methods.declare import value_text
from dcmerge.vectors.mix import CONSTANT, Mix, parsed_weights, profile_text, weights_text

OUT = "merged.safetensors"


def command(recipe: Recipe, out: str = OUT) -> str:
    """The command line that writes the recipe's file, each option in a line of its own, quoted for a POSIX shell.

    Raises InputError for a recipe that the command line has no option for.
    """
    if recipe.arithmetic != "float32":
        raise InputError(f"arithmetic: expected float32, in which the command merges, got {recipe.arithmetic}")
    lines = ["python -m dcmerge merge", *(option_text(name, value) for name, value in _options(recipe, out))]
    return " \\\n  ".join(lines)


def python(recipe: Recipe, out: str = OUT) -> str:
    """A script that writes the recipe's file."""
    lines = ["import torch", ""] if recipe.arithmetic != "float32" else []
    lines += ["import dcmerge", *_opening(recipe), *_merging(recipe), *_saving(recipe, out)]
    return "\n".join(lines) + "\n"


def _plugin(recipe: Recipe) -> str | None:
    """The file that brings the method; None of one that is built in or whose package is installed."""
    origin = method(recipe.method).origin
    return origin.path if origin else None


def _options(recipe: Recipe, out: str) -> Iterator[tuple[str, str | None]]:
    if recipe.zoo:
        yield "zoo", recipe.zoo
    else:
        yield from input_options({name: one["file"] for name, one in recipe.inputs.items()})
    if recipe.qkv != STORED:
        yield "qkv", recipe.qkv
    yield from fit_options(recipe.fit)
    if path := _plugin(recipe):
        yield "plugin", path
    yield "method", recipe.method
    yield from set_options(recipe.method, recipe.parameters)
    yield from mix_options(recipe.mix)
    if recipe.tolerance:
        yield "tolerance", exact(recipe.tolerance)
    if dtype := asked_dtype(recipe):
        yield "dtype", dtype
    if recipe.task is not None:
        yield "task", recipe.task
    chosen = method(recipe.method)
    if chosen.usual_scale_of or (recipe.scale, recipe.scale_origin) != (chosen.usual_scale, USUAL):
        yield "scale", exact(recipe.scale)
        if recipe.scale_origin != GIVEN:
            yield "scale-origin", recipe.scale_origin
    if recipe.content != MODEL:
        yield "delta-only" if recipe.content == DELTA else "as-adapter", None
    if recipe.adapter_rank is not None:
        yield "adapter-rank", str(recipe.adapter_rank)
    yield "out", out


def input_options(files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The base's file and each task's; raises InputError for a task that no option holds."""
    for name, file in files.items():
        if name == BASE:
            yield "base", file
        elif "=" in name or name != name.strip():
            raise InputError(f"task: the command takes names without = and spaces around, got {shown(name)!r}")
        else:
            yield "expert", f"{name}={file}"


def fit_options(fit: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """How the files become one set, as ``Fit.to_data`` gives it."""
    for name, value in fit.items():
        option = name.replace("_", "-")
        yield from ((option, one) for one in value) if isinstance(value, list) else [(option, None if value is True else value)]


def set_options(slug: str, parameters: Mapping[str, Any], row: str = "") -> Iterator[tuple[str, str]]:
    """A method's parameters that are not its defaults; of a ``row`` of a comparison under its name."""
    before = f"{row}." if row else ""
    yield from (("set", f"{before}{name}={exact(value)}") for name, value in method(slug).changed(parameters).items())


def mix_options(mix: Mix) -> Iterator[tuple[str, str]]:
    """Weights and profiles; raises InputError for experts' names that no option holds."""
    if mix.weights:
        if parsed_weights(text := weights_text(mix.weights)) != mix.weights:
            raise InputError("weights: the command takes experts' names without = and commas")
        yield "weights", text
    yield from (("depth", f"{name}={profile_text(values)}") for name, values in mix.depths.items())
    if mix.depth != CONSTANT:
        yield "depth", profile_text(mix.depth)


def option_text(name: str, value: str | None) -> str:
    """An option for a POSIX shell."""
    if value is None:
        return f"--{name}"
    # What begins with a dash would be taken for an option.
    return f"--{name}={_quoted(value)}" if value.startswith("-") else f"--{name} {_quoted(value)}"


def _quoted(value: str) -> str:
    """One word of a POSIX shell; an apostrophe alone is read more easily between double quotes than as '"'"'."""
    return f'"{value}"' if "'" in value and not set(value) & set('"$`\\!\n') else shlex.quote(value)


def exact(value: Any) -> str:
    """As ``--set`` takes it, with all digits that it has."""
    text = value_text(value)
    return text if not isinstance(value, float) or float(text) == value else repr(value)


def _opening(recipe: Recipe) -> list[str]:
    if recipe.zoo:
        return ["from dcmerge.zoo import open_zoo", "", f"zoo = open_zoo({recipe.zoo!r}{_qkv(recipe)})", "vectors = zoo.vectors"]
    base = recipe.inputs.get(BASE, {}).get("file")
    experts = [f"        {name!r}: {one['file']!r}," for name, one in recipe.inputs.items() if name != BASE]
    grouped = [f"    {_qkv(recipe)[2:]},"] if _qkv(recipe) else []
    chosen = ", ".join(f"{name}={tuple(value) if isinstance(value, list) else value!r}" for name, value in recipe.fit.items())
    grouped += [f"    fit=dcmerge.Fit({chosen}),"] if chosen else []
    return ["", "vectors = dcmerge.TaskVectors.open(", f"    base={base!r},", "    experts={", *experts, "    },", *grouped, ")"]


def _qkv(recipe: Recipe) -> str:
    """What opening is told of q, k and v, where there is something to tell."""
    return "" if recipe.qkv == STORED else f", qkv={recipe.qkv!r}"


def _merging(recipe: Recipe) -> list[str]:
    given = [f"{name}={value!r}" for name, value in method(recipe.method).changed(recipe.parameters).items()]
    if recipe.zoo and "images" in method(recipe.method).needs:
        given.insert(0, "bench=zoo.bench")
    if recipe.arithmetic != "float32":
        given.append(f"dtype=torch.{recipe.arithmetic}")
    before = [f"vectors.tolerance = {recipe.tolerance!r}"] if recipe.tolerance else []
    before += [
        f"vectors = vectors.mixed({', '.join(f'{name}={value!r}' for name, value in recipe.mix.to_data().items())})"
    ] * bool(recipe.mix)
    if path := _plugin(recipe):
        before.append(f"dcmerge.load_plugin({path!r})")
    return [*before, f"merged = dcmerge.merge({', '.join(['vectors', repr(recipe.method), *given])})"]


def _saving(recipe: Recipe, out: str) -> list[str]:
    how = [f"scale={recipe.scale!r}", f"scale_origin={recipe.scale_origin!r}"]
    how += ["delta_only=True"] if recipe.content == DELTA else []
    how += [f"rank={recipe.adapter_rank!r}"] if recipe.adapter_rank is not None else []
    how += [f"task={recipe.task!r}"] if recipe.task is not None else []
    how += [f"dtype={dtype!r}"] if (dtype := asked_dtype(recipe)) else []
    save = "save_adapter" if recipe.content == ADAPTER else "save"
    return [f"merged.{save}({', '.join([repr(out), *how])})"]
