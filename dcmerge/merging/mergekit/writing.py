"""A recipe written as mergekit's configuration, or one sentence why mergekit has no such."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dcmerge.checkpoints.documents import dumped_document
from dcmerge.errors import InputError
from dcmerge.merging.mergekit.reading import METHOD_KEY
from dcmerge.merging.recipe import BASE, CONTENTS, Recipe
from dcmerge.methods import method
from dcmerge.methods.breadcrumbs import DENSITY
from dcmerge.vectors.mix import CONSTANT, Mix


def to_mergekit(recipe: Recipe) -> str:
    """The YAML with which mergekit makes the same model; raises InputError, which says why, where it has no such."""
    if recipe.content != CONTENTS[0] or recipe.task is not None:
        what = "a delta" if recipe.task is None else "one task's"
        raise InputError(f"mergekit writes whole models, expected one, got {what}")
    if recipe.fit:
        raise InputError(f"mergekit merges models of equal names and shapes, got a merge with {', '.join(recipe.fit)} chosen")
    if BASE not in recipe.inputs:
        raise InputError("mergekit merges whole models, expected a base, got adapters alone")
    experts = {name: one["file"] for name, one in recipe.inputs.items() if name != BASE}
    name, shared, own = _written(recipe, len(experts))
    first = next(iter(experts.values()))
    base = {} if name in ("linear", "karcher") else {"base_model": first if name == "slerp" else recipe.inputs[BASE]["file"]}
    if recipe.mix and "weight" not in own:
        raise InputError(f"mix: mergekit's {name} has no weights, expected none")
    if name in ("ties", "dare_ties") and shared["normalize"] and any(value < 0 for value in recipe.mix.weights.values()):
        raise InputError(f"mix: mergekit's {name} normalises weights of one sign alone, expected none below 0")
    models = [
        {"model": file, **({"parameters": own | _weight(recipe.mix, expert)} if own else {})} for expert, file in experts.items()
    ]
    settings = {"parameters": shared} if shared else {}
    text = dumped_document({METHOD_KEY: name, **base, "models": models, **settings, **_written_dtype(recipe)})
    draws = f"# mergekit draws other entries than seed {recipe.parameters['seed']} here\n" if recipe.method == "dare" else ""
    return draws + text


def _written(recipe: Recipe, count: int) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """mergekit's method, its settings for all models and for each."""
    p, scale = method(recipe.method).check(recipe.parameters), 1.0 if recipe.scale is None else recipe.scale
    alphas = [scale * value for value in recipe.mix.depth]
    alpha = alphas if len(alphas) > 1 else alphas[0]
    own, plain = {"weight": 1.0}, {"normalize": False, "lambda": alpha}
    if recipe.method == "average":
        return ("linear", {}, own) if alpha == 1 else ("task_arithmetic", {"normalize": True, "lambda": alpha}, own)
    if recipe.method == "task_arithmetic":
        return "task_arithmetic", plain, own
    if recipe.method == "ties":
        _only("ties", "trim", p["trim"], "parameter")
        return "ties", {"normalize": p["aggregate"] == "mean", "lambda": alpha}, own | {"density": p["density"]}
    if recipe.method == "dare":
        _only("dare", "rescale", p["rescale"], "l1", "none")
        name = "dare_linear" if p["combine"] == "sum" else "dare_ties"
        shared = {"normalize": p["combine"] == "elected_mean", "rescale": p["rescale"] == "l1", "lambda": alpha}
        return name, shared, own | {"density": p["density"]}
    if recipe.method == "breadcrumbs":
        _only("breadcrumbs", "form", p["form"], "mergekit")
        density = DENSITY["mergekit"] if p["density"] is None else p["density"]
        if density + p["gamma"] > 1:
            raise InputError("breadcrumbs: mergekit leaves out fewer outliers where density + gamma exceed 1, expected at most 1")
        return "breadcrumbs", plain, own | {"density": density, "gamma": p["gamma"]}
    if recipe.method not in ("model_stock", "slerp", "karcher"):
        known = "average, task_arithmetic, ties, dare, breadcrumbs, model_stock, slerp, karcher"
        raise InputError(f"method: mergekit has no {recipe.method}, expected one of {known}")
    _only(recipe.method, "scale", scale, 1.0)
    if recipe.method == "model_stock":
        _only("model_stock", "limit", p["limit"], False)
        if count < 2:
            raise InputError("model_stock: mergekit asks for at least 2 experts, got 1")
        return "model_stock", {}, {}
    return ("slerp", {"t": p["position"]}, {}) if recipe.method == "slerp" else ("karcher", {"max_iter": p["iterations"]}, {})


def _weight(mix: Mix, expert: str) -> dict[str, Any]:
    """An expert's weight where it is not 1, as a gradient over the layers where it has a profile."""
    weight = mix.weights.get(expert, 1.0)
    values = [weight * value for value in mix.depths.get(expert, CONSTANT)]
    return {} if values == [1.0] else {"weight": values if len(values) > 1 else values[0]}


def _only(slug: str, name: str, value: Any, *expressed: Any) -> None:
    if value not in expressed:
        choices = " or ".join(map(str, expressed))
        raise InputError(f"{slug}: mergekit cannot express {name} {value}, expected {choices}")


def _written_dtype(recipe: Recipe) -> dict[str, str]:
    """float32 arithmetic and the one floating dtype that is written; nothing where that is not known."""
    floats: Sequence[str] = [one for one in (recipe.dtype or "").split("+") if "float" in one]
    if len(floats) > 1:
        raise InputError(f"dtype: mergekit writes one for all parameters, got {recipe.dtype}")
    if not floats:
        return {}
    return {"dtype": recipe.arithmetic} | ({"out_dtype": floats[0]} if floats[0] != recipe.arithmetic else {})
