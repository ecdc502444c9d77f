"""LoRA files of image models, one file without settings beside it: kohya's, diffusers', ai-toolkit's and LyCORIS' names.

kohya flattens a module's name (``lora_unet_down_blocks_0_..._to_q.lora_down.weight``), diffusers keeps its dots
(``unet.down_blocks.0...to_q.lora_A.weight``, before 0.20 ``...attn1.processor.to_q_lora.down.weight``). What a product is
multiplied by is alpha / r, alpha from the tensor ``MODULE.alpha``, else from the metadata; without any it is 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from dcmerge.checkpoints.adapted import Adapted, Product
from dcmerge.checkpoints.base import TensorFile, TensorInfo
from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError

KOHYA, DIFFUSERS = "kohya", "diffusers"
#: Ends of names: what is down (A), what is up (B).
_FORMS = (
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
)
_PRODUCT = re.compile(r"(?P<module>.+)\.(?P<kind>hada|lokr)_(?P<part>w1_a|w1_b|w2_a|w2_b|w1|w2|t1|t2)")
_BESIDE = (".alpha", ".dora_scale")
#: Parts of a pipeline, which begin a name that keeps its dots.
_PARTS = re.compile(r"(unet|transformer(_2)?|text_encoder(_[23])?|diffusion_model|prior|controlnet|te[123]?)\.")
_METADATA = "lora_adapter_metadata"


def form_of(names: Iterable[str]) -> str:
    """The dialect of a file by the names in it; empty where they are none of these."""
    modules = [module for name in names if (module := _module_of(name))]
    if any(module.startswith(("lora_", "lycoris_")) and "." not in module for module in modules):
        return KOHYA
    has_alphas = any(name.endswith(_BESIDE) for name in names)
    if modules and (has_alphas or all(_PARTS.match(module) for module in modules)):
        return DIFFUSERS
    return ""


def _module_of(name: str) -> str:
    """The module that a tensor adapts; empty where it is no factor."""
    if found := _PRODUCT.fullmatch(name):
        return found["module"]
    for down, up in _FORMS:
        if name.endswith((down, up)):
            return name.removesuffix(down).removesuffix(up)
    return ""


def adapted_in(file: TensorFile, metadata: Mapping[str, str]) -> list[Adapted]:
    """Every adapted weight of such a file. Raises InputError for a factor without the other, and for a tensor of another kind."""
    infos, found, used = file.infos, [], set()
    alphas = _alphas(metadata)
    products = products_of(file)
    used |= {name for parts in products.values() for name in parts.values()}
    for name in infos:
        for down, up in _FORMS:
            if not name.endswith(down):
                continue
            module = name.removesuffix(down)
            if f"{module}{up}" not in infos:
                raise InputError(f"Expected factors in pairs, got {shown(name)} without the other in {shown(file.path)}.")
            found.append(_plain(file, module, (name, f"{module}{up}"), alphas))
            used |= {name, f"{module}{up}"}
            break
    for module, parts in products.items():
        saved = (f"{module}.lora_down.weight", f"{module}.lora_up.weight")
        alpha = f"{module}.alpha"
        one = product(file, module, parts, f"{_layer(module)}.weight", saved, alpha)
        inner = _inner_rank(file.infos, one)
        scale = _number(file, alpha) / inner if alpha in file.infos and inner else 1.0
        found.append(replace(one, scale=scale, magnitude=_magnitude(file.infos, module)))
    others = [name for name in infos if name not in used and not name.endswith(_BESIDE)]
    if others:
        raise InputError(f"The LoRA file {shown(file.path)} holds {shown(others[0])}, which is no factor of a kind that is read.")
    return found


def _plain(file: TensorFile, module: str, keys: tuple[str, str], alphas: Mapping[str, float]) -> Adapted:
    a, b = (file.infos[key].shape for key in keys)
    if len(a) < 2 or len(b) < 2 or a[0] != b[1] or any(size != 1 for size in b[2:]):
        raise InputError(f"Expected factors of one rank for {shown(module)}, got {a} and {b} in {shown(file.path)}.")
    alpha = f"{module}.alpha"
    value = _number(file, alpha) if alpha in file.infos else _alpha_of(module, alphas)
    scale = 1.0 if value is None else value / a[0]
    at, has = (keys[0], keys[1]), alpha if alpha in file.infos else ""
    return Adapted(f"{_layer(module)}.weight", *at, scale, False, module, 1, at, has, _magnitude(file.infos, module))


def products_of(file: TensorFile) -> dict[str, dict[str, str]]:
    """Module -> part (w1, w1_a, ...) -> name in the file, of LoHa and LoKr."""
    found: dict[str, dict[str, str]] = {}
    for name in file.infos:
        if match := _PRODUCT.fullmatch(name):
            found.setdefault(match["module"], {})[match["part"]] = name
    return found


def product(
    file: TensorFile, module: str, parts: Mapping[str, str], weight: str, saved: tuple[str, str], alpha: str = ""
) -> Product:
    """A weight of LoHa or LoKr with scale 1, which is written as LoRA's factors. InputError where an operand is incomplete."""
    operands: list[tuple[str, ...]] = []
    for number in ("1", "2"):
        keys = [parts[part] for part in (f"w{number}", f"w{number}_a", f"w{number}_b") if part in parts]
        if len(keys) != (1 if f"w{number}" in parts else 2):
            raise InputError(f"Expected two operands for {shown(module)} in {shown(file.path)}, got an incomplete one.")
        operands.append(tuple(keys))
    first, second = operands
    cores = parts.get("t1", ""), parts.get("t2", "")
    kronecker = "lokr" in next(iter(parts.values()))
    return Product(weight, first[0], second[-1], 1.0, False, module, 1, saved, alpha, "", first, second, *cores, kronecker)


def _inner_rank(infos: Mapping[str, TensorInfo], one: Product) -> int | None:
    """r of an operand in two parts, by which alpha is divided; None where both are whole."""
    return next((infos[keys[1]].shape[0] for keys in (one.second, one.first) if len(keys) == 2), None)


def _magnitude(infos: Mapping[str, TensorInfo], module: str) -> str:
    return f"{module}.dora_scale" if f"{module}.dora_scale" in infos else ""


def _layer(module: str) -> str:
    """The model's own name of the layer: old diffusers adapted an attention's processor."""
    name = module.replace(".processor.", ".")
    return f"{name}.0" if module != name and name.endswith("to_out") else name


def _number(file: TensorFile, key: str) -> float:
    value = file.read(key)
    if value.numel() != 1:
        raise InputError(f"Expected one number as {shown(key)} in {shown(file.path)}, got {tuple(value.shape)}.")
    return float(value)


def _alphas(metadata: Mapping[str, str]) -> dict[str, float]:
    """What the metadata says of alpha, by the beginning of the modules' names; "" for all."""
    try:
        told = json.loads(metadata.get(_METADATA, "{}"))
    except ValueError:
        told = {}
    found = {}
    for key, value in told.items() if isinstance(told, dict) else ():
        part, _, field = key.rpartition(".")
        if field == "lora_alpha" and isinstance(value, int | float):
            found[f"{part}." if part else ""] = float(value)
        if field == "alpha_pattern" and isinstance(value, dict):
            found |= {f"{part}.{name}": float(alpha) for name, alpha in value.items() if isinstance(alpha, int | float)}
    whole = metadata.get("ss_network_alpha", "")
    return found | ({"": float(whole)} if re.fullmatch(r"\d+(\.\d+)?", whole) else {})


def _alpha_of(module: str, alphas: Mapping[str, float]) -> float | None:
    """The most exact of what the metadata says."""
    fitting = [key for key in alphas if module.startswith(key)]
    return alphas[max(fitting, key=len)] if fitting else None
