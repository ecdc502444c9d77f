"""A merge as a PEFT adapter: scale 1, α folded into the factors, under the names with which the experts' adapters load."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcmerge.checkpoints import (
    ADAPTER_CONFIG,
    PEFT,
    Adapted,
    GrowingWriter,
    LoraCheckpoint,
    LowRank,
    OfExpert,
    dense,
    read_json,
    scaled_sum,
    shown,
    write_text,
)
from dcmerge.checkpoints.names import modern_name
from dcmerge.checkpoints.peft_keys import PEFT_PREFIX
from dcmerge.errors import InputError
from dcmerge.merging.output.experts import Packing, joined
from dcmerge.merging.output.targets import ADAPTER_WEIGHTS
from dcmerge.spectral.linalg import frobenius_norm, truncated_svd
from dcmerge.vectors.layers import layer_of
from dcmerge.vectors.task_vectors import Delta, TaskVectors

#: What an attention's two weights share: PEFT knows one rank of the module.
_SHARED = re.compile(r"\.base_layer\.out_proj\.lora_A")


@dataclass
class Shrunk:
    """What came of every weight: its rank, the energy of the merged delta, and how much of it was left out."""

    ranks: dict[str, int] = field(default_factory=dict)
    energy: dict[str, float] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    dense: list[str] = field(default_factory=list)

    @property
    def discarded(self) -> float:
        """Share of the energy of all matrices together that is left out."""
        whole = sum(self.energy.values())
        return sum(self.lost.values()) / whole if whole else 0.0

    @property
    def worst(self) -> tuple[str, float]:
        """The matrix that loses the largest share."""
        shares = {name: self.lost[name] / energy if energy else 0.0 for name, energy in self.energy.items()}
        return max(shares.items(), key=lambda item: item[1])


def places(vectors: TaskVectors) -> dict[str, Adapted]:
    """Canonical name -> where the experts' own files have it, by the first expert that adapts it.

    Raises InputError where experts are no adapters, or were trained on different parts of the model: then no adapter loads where
    all of them did.
    """
    if vectors.kind != "lora":
        raise InputError("expected LoRA adapters to write an adapter, got full fine-tuned experts")
    adapters = vectors.adapters
    found: dict[str, Adapted] = {}
    for name in (name for name in vectors.parameters if not in_full(vectors, name)):
        owner = next(adapter for adapter in adapters if name in adapter.adapted)
        if _root(owner, name) not in {_root(adapters[0], own) for own in adapters[0].adapted}:
            raise InputError(
                f"expected adapters of the same part of the model, got {shown(adapters[0].path.name)} and "
                f"{shown(owner.path.name)}, whose names differ: {shown(owner.source_names[name])}"
            )
        found[name] = owner.adapted[name]
    return found


def _root(adapter: LoraCheckpoint, name: str) -> tuple[str, str]:
    """What comes off the canonical name, and before what is left of it, to give the name in the model that PEFT wrapped."""
    source = modern_name(adapter.source_names[name])
    if name.endswith(source):
        return name.removesuffix(source), ""
    return "", source.removesuffix(name)


def write_factors(
    vectors: TaskVectors,
    deltas: Iterable[tuple[str, Delta]],
    folder: Path,
    scale: float,
    rank: int | None,
    metadata: Mapping[str, str],
) -> Shrunk:
    """The two files of PEFT in a folder that is there: weights as the deltas come, then the settings that fit their ranks."""
    at, done = places(vectors), Shrunk()
    whole = {name: _whole_key(vectors, name) for name in vectors.parameters if in_full(vectors, name)}
    keys = [*dict.fromkeys(key for place in at.values() for key in place.saved_keys), *whole.values()]
    shared = {place.module for place in at.values() if _SHARED.search(place.factor_a)}
    with GrowingWriter(folder / ADAPTER_WEIGHTS, keys, torch.float32, metadata) as file:

        def adapted() -> Iterator[tuple[str, Delta]]:
            for name, delta in deltas:
                if name in whole:
                    file.put(whole[name], scaled_sum(vectors.base_tensor(name).float(), dense(delta), scale))
                else:
                    yield name, delta

        packing = Packing()
        for one in joined(vectors, at, adapted()):
            bound = one.bound if rank is None else min(rank, *one.delta.shape)
            factors = _balanced(one.name, one.delta, scale / one.place.times, bound, done)
            if isinstance(one.place, OfExpert):
                _put_experts(file, packing.add(one.place, factors), at, done)
            else:
                factors = factors.padded(bound if one.place.module in shared else 1)
                done.ranks[one.name] = factors.rank
                _put_pair(file, one.place, factors, _kernel(vectors, one.name))
        _put_experts(file, packing.rest(), at, done)
    write_text(folder / ADAPTER_CONFIG, json.dumps(settings(vectors, at, done.ranks), indent=2) + "\n")
    return done


def _put_pair(file: GrowingWriter, place: Adapted, factors: LowRank, kernel: tuple[int, ...]) -> None:
    straight = _as_convolution(factors, kernel)
    A, B = (factors.left.T, factors.right.T) if place.transposed else straight
    for key, factor in zip(place.saved_keys, (A, B), strict=True):
        file.put(key, factor)


def _put_experts(
    file: GrowingWriter, packed: Iterable[tuple[OfExpert, Tensor, Tensor]], at: Mapping[str, Adapted], done: Shrunk
) -> None:
    """Packed experts, whose parameter has one rank."""
    for place, A, B in packed:
        done.ranks |= {name: A.shape[0] // place.experts for name, one in at.items() if one.module == place.module}
        file.put(place.saved_keys[0], A)
        file.put(place.saved_keys[1], B)


def in_full(vectors: TaskVectors, name: str) -> bool:
    """Whether a parameter was trained in full beside the factors, and is written so."""
    return any(name in adapter.whole for adapter in vectors.adapters)


def _whole_key(vectors: TaskVectors, name: str) -> str:
    """The name of such a tensor in the experts' own files, behind PEFT's prefix."""
    key = next(adapter.whole[name] for adapter in vectors.adapters if name in adapter.whole)
    return PEFT_PREFIX + key.removeprefix(PEFT_PREFIX)


def in_one_file(vectors: TaskVectors) -> bool:
    """Whether the experts are LoRA files of image models, which have no settings beside them."""
    return bool(vectors.adapters) and all(adapter.dialect != PEFT for adapter in vectors.adapters)


def write_lora_file(
    vectors: TaskVectors,
    deltas: Iterable[tuple[str, Delta]],
    path: Path,
    scale: float,
    rank: int | None,
    metadata: Mapping[str, str],
) -> Shrunk:
    """One file in the experts' dialect: up, down and alpha, which is the rank, so that the scale is 1."""
    at, done = places(vectors), Shrunk()
    keys = [key for place in at.values() for key in (*place.saved_keys, *([place.alpha_key] if place.alpha_key else []))]
    with GrowingWriter(path, keys, torch.float32, metadata) as file:
        for name, delta in deltas:
            place, bound = at[name], layer_of(vectors, name).joint_rank()
            bound = bound if rank is None else min(rank, *delta.shape)
            factors = _balanced(name, delta, scale, bound, done).padded(1)
            done.ranks[name] = factors.rank
            down, up = _as_convolution(factors, _kernel(vectors, name))
            file.put(place.saved_keys[0], down)
            file.put(place.saved_keys[1], up)
            if place.alpha_key:
                file.put(place.alpha_key, torch.tensor(float(factors.rank)))
    return done


def _kernel(vectors: TaskVectors, name: str) -> tuple[int, ...]:
    """The shape of a convolution's weight; empty for a matrix."""
    return next((adapter.kernels[name] for adapter in vectors.adapters if name in adapter.kernels), ())


def _as_convolution(factors: LowRank, kernel: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(down, up), of a convolution's weight as convolutions: the first with its kernel, the second of size 1."""
    if not kernel:
        return factors.right, factors.left
    return factors.right.reshape(factors.rank, *kernel[1:]), factors.left.reshape(*factors.left.shape, *[1] * (len(kernel) - 2))


def _balanced(name: str, delta: Delta, scale: float, bound: int, done: Shrunk) -> LowRank:
    """U √s and √s Vᵀ of scale · delta without directions that are rounding, at most ``bound`` of them."""
    if not isinstance(delta, LowRank):
        done.dense.append(name)
    svd = truncated_svd(delta, None if isinstance(delta, LowRank) else bound)
    if not abs(scale) * svd.largest < torch.finfo(torch.float32).max:
        raise InputError(f"{name} leaves the range of float32 at scale {scale:g}: expected a smaller scale")
    kept = svd.present().truncate(bound)
    known = isinstance(delta, LowRank) or svd.spectrum.numel() == min(delta.shape)  # a quick route knows the leading values alone
    energy = _square(svd.spectrum) if known else frobenius_norm(delta) ** 2
    lost = _square(svd.spectrum[kept.rank :]) if known else max(0.0, energy - _square(kept.s))
    done.energy[name], done.lost[name] = energy, lost
    root = kept.s.sqrt() * abs(scale) ** 0.5
    return LowRank(kept.U * (root if scale >= 0 else -root), root[:, None] * kept.V.T)


def _square(s: Tensor) -> float:
    return s.double().square().sum().item()


def settings(vectors: TaskVectors, at: Mapping[str, Adapted], ranks: Mapping[str, int]) -> dict[str, Any]:
    """``adapter_config.json``: lora_alpha is the rank, so that the scale is 1; the most frequent rank is the default."""
    adapters = vectors.adapters
    configs = [read_json(adapter.path / ADAPTER_CONFIG) for adapter in adapters]
    by_module = {place.module: ranks[name] for name, place in at.items()}
    default = Counter(by_module.values()).most_common(1)[0][0]
    pattern = _pattern(by_module, default)
    known = [adapter.settings for adapter in adapters if adapter.settings is not None]
    lists = [names for one in known if (names := one.targets) is not None]
    parameters = sorted({name for one in known for name in one.parameters})
    layers = {name for name in by_module if not any(name == one or name.endswith(f".{one}") for one in parameters)}
    targets = sorted({name for names in lists for name in names} if len(lists) == len(adapters) else layers)
    written = {
        "peft_type": "LORA",
        "task_type": _common(configs, "task_type"),
        "inference_mode": True,
        "base_model_name_or_path": _common(configs, "base_model_name_or_path"),
        "r": default,
        "lora_alpha": default,
        "lora_dropout": 0.0,
        "bias": _biases(vectors, at),
        "target_modules": targets,
        "fan_in_fan_out": any(one.fan_in_fan_out for one in known),
        "init_lora_weights": True,
    }
    written |= {"target_parameters": parameters} if parameters else {}
    if pattern:
        written |= {"rank_pattern": pattern, "alpha_pattern": pattern}
    # Which PEFT wrote the experts decides how often it adds an attention's output: the new adapter counts as one of them.
    version = known[0].peft_version
    # A name without its tensors, which were left out, would make the adapter incomplete.
    kept = {part for name in vectors.parameters if in_full(vectors, name) for part in _whole_key(vectors, name).split(".")}
    saved = {name for one in known for name in one.saved if name.rpartition(".")[2] in kept}
    written |= {"modules_to_save": sorted(saved)} if saved else {}
    return written | ({"peft_version": version} if version else {})


def _biases(vectors: TaskVectors, at: Mapping[str, Adapted]) -> str:
    """What PEFT calls the biases that are written: loading skips those that the settings do not name."""
    saved = {name for adapter in vectors.adapters if adapter.settings for name in adapter.settings.saved}
    names = [name for name in vectors.parameters if in_full(vectors, name) and name.endswith(".bias")]
    trained = [name for name in names if not saved & {*name.split(".")}]
    if not trained:
        return "none"
    return "lora_only" if all(f"{name.removesuffix('.bias')}.weight" in at for name in trained) else "all"


def _pattern(by_module: Mapping[str, int], default: int) -> dict[str, int]:
    """The other ranks: by the last part of the name where all such modules have it, else by the whole name."""
    by_leaf: dict[str, set[int]] = {}
    for module, rank in by_module.items():
        by_leaf.setdefault(module.rpartition(".")[2], set()).add(rank)
    found: dict[str, int] = {}
    for module, rank in by_module.items():
        leaf = module.rpartition(".")[2]
        if len(by_leaf[leaf]) == 1:
            found |= {re.escape(leaf): rank} if rank != default else {}
        elif rank != default:
            found["^" + re.escape(module)] = rank
    return found


def _common(configs: Iterable[Mapping[str, Any]], key: str) -> str | None:
    """The text that all of them have there, or None."""
    values = {config.get(key) if isinstance(config.get(key), str) else None for config in configs}
    return values.pop() if len(values) == 1 else None
