"""PEFT LoRA adapters: a folder with ``adapter_config.json`` and the factors A (r, n) and B (m, r) of each weight.

The delta of a weight is scale * B @ A, kept as factors. Embeddings (``lora_embedding_A`` and ``_B``) and layers that
store their weight as (in, out) (``fan_in_fan_out``) use the transposed product.

An adapted ``nn.MultiheadAttention`` M has two pairs of factors, and PEFT always writes both: ``M.lora_A`` belongs to
``M.in_proj_weight``, ``M.base_layer.out_proj.lora_A`` to ``M.out_proj.weight``. So M is one exactly if the second pair
is there; no guess from the module's name is needed. PEFT up to 0.21 adds the second delta twice; we read what the
adapted model computes, so ``left`` is doubled for those (and ``notes`` says so).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from dcmerge.checkpoints.adapter_settings import AdapterSettings
from dcmerge.checkpoints.base import Checkpoint, TensorFile, TensorInfo
from dcmerge.checkpoints.low_rank import LowRank
from dcmerge.checkpoints.names import canonical_names
from dcmerge.checkpoints.paths import checked_file, shown
from dcmerge.checkpoints.safetensors_files import SafetensorsFile
from dcmerge.checkpoints.seen import SeenFile
from dcmerge.checkpoints.state_dicts import StateDictFile
from dcmerge.errors import InputError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PEFT_PREFIX = "base_model.model."
# "lora_A.weight" as saved, "lora_A.default.weight" as in the live module.
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.(?P<adapter>[^.]+))?\.weight")
EMBEDDING_FACTOR = re.compile(r"(?P<module>.+)\.lora_embedding_(?P<side>[AB])(\.(?P<adapter>[^.]+))?")
ATTENTION_OUTPUT = ".base_layer.out_proj"
COPY = ".base_layer.weight"


@dataclass(frozen=True)
class Adapted:
    """One adapted weight: its name in the model that PEFT wrapped, its factors' names in the file, and its scale.

    ``module`` is what PEFT calls the adapted module (of an attention's output the attention), ``times`` how often PEFT adds the
    delta, which ``scale`` includes.
    """

    weight: str
    factor_a: str
    factor_b: str
    scale: float
    transposed: bool
    module: str
    times: int = 1

    @property
    def saved_keys(self) -> tuple[str, str]:
        """The factors' names as PEFT saves them: without the adapter's own name, behind PEFT's prefix."""
        return _saved_key(self.factor_a), _saved_key(self.factor_b)


def _saved_key(key: str) -> str:
    match = FACTOR.fullmatch(key) or EMBEDDING_FACTOR.fullmatch(key)
    assert match is not None  # only such keys become an Adapted
    form = ".lora_{}.weight" if match.re is FACTOR else ".lora_embedding_{}"
    return PEFT_PREFIX + match["module"].removeprefix(PEFT_PREFIX) + form.format(match["side"])


def is_adapter_key(name: str) -> bool:
    """Whether a tensor of that name belongs to a LoRA adapter."""
    return bool(FACTOR.fullmatch(name) or EMBEDDING_FACTOR.fullmatch(name))


class LoraCheckpoint(Checkpoint):
    """The deltas of a LoRA adapter as factors.

    Attributes:
        infos: canonical name of the adapted weight -> shape (m, n) of the product, dtype of the factors.
        source_names: canonical name -> the weight's name in the model that PEFT wrapped.
        adapted: canonical name -> names of the factors in the file, scale.
        settings: the configuration.
        rank: the largest r of all adapted weights.
    """

    kind = "lora"

    def __init__(self, path: Path, settings: AdapterSettings, file: TensorFile, config: SeenFile) -> None:
        found: dict[str, Adapted] = {}
        for one in _adapted(file, settings):
            if one.weight in found:
                raise InputError(f"Expected one pair of factors for {shown(one.weight)} in {shown(file.path)}, found two.")
            found[one.weight] = one
        sources = canonical_names(dict.fromkeys(found, True), path)
        self.settings = settings
        self.trained_class = settings.trained_class
        self.adapted = {canonical: found[weight] for canonical, weight in sources.items()}
        self._file = file
        infos = {canonical: _product_info(file, one) for canonical, one in self.adapted.items()}
        super().__init__(path, infos, sources, [file.seen, config])
        self.rank = max(file.infos[one.factor_a].shape[0] for one in self.adapted.values())
        self.notes = file.notes
        if settings.doubles_attention_output and any(ATTENTION_OUTPUT in one.factor_a for one in self.adapted.values()):
            self.notes += (f"{shown(path.name)}: PEFT adds the out_proj deltas of this adapter twice, and so do we.",)
        if copies := len(file.infos) - len(factor_keys(file)):
            self.notes += (f"{shown(path.name)}: the file also holds {copies} copies of the base's weights, which are not read.",)
        if (path / "non_lora_trainables.bin").exists():
            self.notes += ("The file non_lora_trainables.bin beside the adapter is not read.",)

    @classmethod
    def open(cls, path: Path) -> LoraCheckpoint:
        """Open an adapter folder; InputError where it is incomplete, damaged or of an unsupported kind."""
        config = SeenFile.of(path / ADAPTER_CONFIG)
        settings = AdapterSettings.open(config.path)
        for name in ADAPTER_WEIGHTS:
            if (path / name).exists():
                reader = SafetensorsFile if name.endswith(".safetensors") else StateDictFile
                return cls(path, settings, reader(checked_file(path / name)), config)
        raise InputError(f"Expected {' or '.join(ADAPTER_WEIGHTS)} in {shown(path)}, found neither.")

    def renamed(self, names: Mapping[str, str]) -> Self:
        twin = super().renamed(names)
        twin.adapted = {names[name]: one for name, one in self.adapted.items()}
        return twin

    def rank_of(self, name: str) -> int:
        """r of one weight, without reading it; 0 where the adapter has none for it."""
        if name not in self.adapted:
            return 0
        return self._file.infos[self.adapted[name].factor_a].shape[0]

    def read(self, name: str) -> LowRank:
        """The factors, scale included in ``left``: half precision becomes float32, so that the scale rounds nothing."""
        one = self.adapted[name]
        a, b = (_at_least_float32(self._file.read(key)) for key in (one.factor_a, one.factor_b))
        if one.transposed:
            return LowRank((a.T * one.scale).contiguous(), b.T.contiguous())
        return LowRank(b * one.scale, a)


def factor_keys(file: TensorFile) -> list[str]:
    """Names of the file without the copies of the base's own weights that PEFT saves beside adapted embeddings and heads."""
    adapted = {match["module"] for key in file.infos if (match := FACTOR.fullmatch(key) or EMBEDDING_FACTOR.fullmatch(key))}
    return [key for key in file.infos if not (key.endswith(COPY) and key.removesuffix(COPY) in adapted)]


def _adapted(file: TensorFile, settings: AdapterSettings) -> list[Adapted]:
    """Pair the factors of a file and check each pair."""
    pairs: dict[str, dict[str, str]] = {}
    for key in factor_keys(file):
        match = FACTOR.fullmatch(key) or EMBEDDING_FACTOR.fullmatch(key)
        if match is None:
            raise InputError(
                f"The adapter {shown(file.path)} holds {shown(key)}: only pairs of LoRA factors are supported, no "
                "biases, DoRA magnitudes or fully trained modules."
            )
        pair = pairs.setdefault(match["module"], {})
        if match["side"] in pair:
            two = f"two factors {match['side']} of {shown(match['module'])}"
            raise InputError(f"Expected one adapter in {shown(file.path)}, found {two}.")
        pair[match["side"]] = key
    if not pairs:
        raise InputError(f"Expected LoRA factors in {shown(file.path)}, found none.")
    return [_one_adapted(file, settings, module, pairs) for module in pairs]


def _one_adapted(file: TensorFile, settings: AdapterSettings, module: str, pairs: dict[str, dict[str, str]]) -> Adapted:
    pair = pairs[module]
    if len(pair) < 2:
        alone = shown(next(iter(pair.values())))
        raise InputError(f"Expected factors in pairs, got {alone} without the other in {shown(file.path)}.")
    # PEFT names the wrapped model's modules behind its own prefix, and gives an attention's output its settings.
    name = module.removeprefix(PEFT_PREFIX)
    owner = name.removesuffix(ATTENTION_OUTPUT)
    is_attention = module + ATTENTION_OUTPUT in pairs
    weight = f"{name}.in_proj_weight" if is_attention else f"{name.replace('.base_layer', '')}.weight"
    is_embedding = bool(EMBEDDING_FACTOR.fullmatch(pair["A"]))
    in_attention = is_attention or name != owner
    transposed = is_embedding or (settings.fan_in_fan_out and not in_attention)
    _check_factors(file, pair, name, settings.rank_of(owner))
    times = 2 if name != owner and settings.doubles_attention_output else 1
    return Adapted(weight, pair["A"], pair["B"], times * settings.scale_of(owner), transposed, owner, times)


def _check_factors(file: TensorFile, pair: dict[str, str], name: str, rank: int) -> None:
    a, b = file.infos[pair["A"]], file.infos[pair["B"]]
    shapes = f"{a.shape} and {b.shape}"
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise InputError(f"The adapter {shown(file.path)} adapts {shown(name)}, which is not a matrix: factors {shapes}.")
    if a.shape[0] != rank or b.shape[1] != rank:
        what = f"factors of rank {rank} for {shown(name)}, as {ADAPTER_CONFIG} says"
        raise InputError(f"Expected {what}, got {shapes} in {shown(file.path)}.")
    if not (a.dtype.is_floating_point and b.dtype.is_floating_point):
        raise InputError(f"Expected floating-point factors of {shown(name)}, got {a.dtype} and {b.dtype} in {shown(file.path)}.")


def _product_info(file: TensorFile, one: Adapted) -> TensorInfo:
    a, b = file.infos[one.factor_a], file.infos[one.factor_b]
    m, n = b.shape[0], a.shape[1]
    dtype = a.dtype if a.dtype == b.dtype else torch.float32
    return TensorInfo((n, m) if one.transposed else (m, n), dtype)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
