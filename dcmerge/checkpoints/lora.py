"""PEFT LoRA adapters: a folder with ``adapter_config.json`` and the factors A (r, n) and B (m, r) of each weight.

The delta of a weight is scale * B @ A, kept as factors. Embeddings (``lora_embedding_A`` and ``_B``) and layers that
store their weight as (in, out) (``fan_in_fan_out``) use the transposed product.

An adapted ``nn.MultiheadAttention`` M has two pairs of factors, and PEFT always writes both: ``M.lora_A`` belongs to
``M.in_proj_weight``, ``M.base_layer.out_proj.lora_A`` to ``M.out_proj.weight``. So M is one exactly if the second pair
is there; no guess from the module's name is needed. PEFT up to 0.21 adds the second delta twice; we read what the
adapted model computes, so ``left`` is doubled for those (and ``notes`` says so).
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Self

from torch import Tensor

from dcmerge.checkpoints.adapted import Adapted, OfExpert, at_least_float32
from dcmerge.checkpoints.adapter_settings import AdapterSettings
from dcmerge.checkpoints.base import Checkpoint, TensorFile, TensorInfo
from dcmerge.checkpoints.dialects import adapted_in, product, products_of
from dcmerge.checkpoints.experts import Pair, Seen, experts_of, named, seen_in
from dcmerge.checkpoints.low_rank import LowRank
from dcmerge.checkpoints.names import canonical_names
from dcmerge.checkpoints.paths import checked_file, shown
from dcmerge.checkpoints.peft_keys import (
    ATTENTION_OUTPUT,
    EMBEDDING_FACTOR,
    FACTOR,
    MAGNITUDE,
    PART,
    PEFT_PREFIX,
    check_whole,
    factor_keys,
    saved_key,
    whole_in,
)
from dcmerge.checkpoints.safetensors_files import SafetensorsFile
from dcmerge.checkpoints.seen import SeenFile
from dcmerge.checkpoints.state_dicts import StateDictFile
from dcmerge.errors import InputError

PEFT = "peft"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


class LoraCheckpoint(Checkpoint):
    """The deltas of a LoRA adapter as factors.

    Attributes:
        infos: canonical name of the adapted weight -> shape (m, n) of the product, dtype of the factors; beside them the whole
            tensors.
        source_names: canonical name -> the weight's name in the model that the library wrapped.
        adapted: canonical name -> names of the factors in the file, scale.
        whole: canonical name -> name in the file of a tensor that was trained in full beside the factors (``modules_to_save``).
        kernels: canonical name -> shape of the weight, where that is a convolution's.
        settings: the configuration of a PEFT adapter; None of a file in another dialect.
        dialect: "peft", "kohya" or "diffusers".
        rank: the largest r of all adapted weights.
    """

    kind = "lora"

    def __init__(
        self,
        path: Path,
        file: TensorFile,
        seen: Sequence[SeenFile],
        adapted: Sequence[Adapted],
        whole: Mapping[str, str],
        settings: AdapterSettings | None = None,
        dialect: str = PEFT,
    ) -> None:
        found: dict[str, Adapted] = {}
        for one in adapted:
            if one.weight in found:
                raise InputError(f"Expected one pair of factors for {shown(one.weight)} in {shown(file.path)}, found two.")
            found[one.weight] = one
        sources = canonical_names(dict.fromkeys([*found, *whole], True), path)
        self.settings, self.dialect, self._file = settings, dialect, file
        self.trained_class = settings.trained_class if settings else ""
        self.adapted = {canonical: found[weight] for canonical, weight in sources.items() if weight in found}
        self.whole = {canonical: whole[weight] for canonical, weight in sources.items() if weight in whole}
        shapes = {name: one.shape(file.infos) for name, one in self.adapted.items()}
        self.kernels = {name: shape for name, shape in shapes.items() if len(shape) > 2}
        infos = {n: TensorInfo((shapes[n][0], prod(shapes[n][1:])), one.dtype(file.infos)) for n, one in self.adapted.items()}
        infos |= {name: file.infos[key] for name, key in self.whole.items()}
        super().__init__(path, infos, sources, seen)
        self.rank = max(self.rank_of(name) for name in self.adapted)
        self.notes = file.notes
        self.metadata = MappingProxyType(dict(getattr(file, "metadata", {})))

    @classmethod
    def open(cls, path: Path) -> LoraCheckpoint:
        """Open an adapter folder; InputError where it is incomplete, damaged or of an unsupported kind."""
        config = SeenFile.of(path / ADAPTER_CONFIG)
        settings = AdapterSettings.open(config.path)
        for name in ADAPTER_WEIGHTS:
            if (path / name).exists():
                reader = SafetensorsFile if name.endswith(".safetensors") else StateDictFile
                file = reader(checked_file(path / name))
                return cls._of_peft(path, file, [file.seen, config], settings)
        raise InputError(f"Expected {' or '.join(ADAPTER_WEIGHTS)} in {shown(path)}, found neither.")

    @classmethod
    def _of_peft(
        cls, path: Path, file: TensorFile, seen: Sequence[SeenFile], settings: AdapterSettings, experts: Seen | None = None
    ) -> LoraCheckpoint:
        whole = whole_in(file)
        found = cls(path, file, seen, _adapted(file, settings, experts), whole, settings)
        _check_magnitudes(path, settings, found)
        check_whole(path, settings, whole, {one.weight for one in found.adapted.values()})
        found.notes += tuple(_notes(path, file, settings, found))
        return found

    def on_experts_of(self, infos: Mapping[str, TensorInfo]) -> LoraCheckpoint:
        """The same adapter, its packed experts as the base has them; ``infos`` are the base's. Itself where it adapts none."""
        experts = seen_in(infos) if self.settings and self.settings.parameters else None
        if experts is None or self.settings is None:
            return self
        return self._of_peft(self.path, self._file, self.seen, self.settings, experts)

    @classmethod
    def of_file(cls, file: SafetensorsFile, dialect: str) -> LoraCheckpoint:
        """One file of another dialect (see ``dialects``), which needs no settings beside it."""
        return cls(file.path, file, [file.seen], adapted_in(file, file.metadata), {}, None, dialect)

    @property
    def with_magnitudes(self) -> bool:
        """Whether it is a DoRA, whose deltas depend on the base's weights."""
        return any(one.magnitude for one in self.adapted.values())

    def renamed(self, names: Mapping[str, str]) -> Self:
        twin = super().renamed(names)
        for table in ("adapted", "whole", "kernels"):
            setattr(twin, table, {names[name]: one for name, one in getattr(self, table).items()})
        return twin

    def selected(self, names: Container[str]) -> Self:
        """The same with some of its tensors alone."""
        twin = copy.copy(self)
        twin.infos = MappingProxyType({name: info for name, info in self.infos.items() if name in names})
        twin.source_names = MappingProxyType({name: self.source_names[name] for name in twin.infos})
        for table in ("adapted", "whole", "kernels"):
            setattr(twin, table, {name: one for name, one in getattr(self, table).items() if name in names})
        return twin

    def weight_shape(self, name: str) -> tuple[int, ...]:
        """The shape of the weight itself, which differs from that in ``infos`` for a convolution."""
        return self.kernels.get(name, self.infos[name].shape)

    def expert_shape(self, name: str) -> tuple[int, int]:
        """(m, n) of one expert's matrix in the packed parameter that a weight belongs to."""
        one = self.adapted[name]
        assert isinstance(one, OfExpert)  # who asks has looked
        return one.expert_shape(self._file.infos)

    def rank_of(self, name: str) -> int:
        """r of one weight, without reading it; 0 where the adapter has none for it."""
        return self.adapted[name].rank(self._file.infos) if name in self.adapted else 0

    def read(self, name: str) -> Tensor | LowRank:
        """The factors, scale included in ``left``; of a tensor that was trained in full its value, not its delta."""
        return self.adapted[name].read(self._file) if name in self.adapted else self._file.read(self.whole[name])

    def magnitude(self, name: str) -> Tensor | None:
        """DoRA's lengths of one weight; None where it has none."""
        key = self.adapted[name].magnitude if name in self.adapted else ""
        return at_least_float32(self._file.read(key)) if key else None


def _check_magnitudes(path: Path, settings: AdapterSettings, found: LoraCheckpoint) -> None:
    """A DoRA whose lengths are not in the file would be merged as a plain LoRA, which it is not."""
    lacking = [name for name, one in found.adapted.items() if not one.magnitude] if settings.use_dora else []
    if lacking:
        raise InputError(
            f"The adapter {shown(path)} uses DoRA: expected lora_magnitude_vector of {len(found.adapted)} weights, got none of "
            f"{len(lacking)} ({shown(lacking[0])}, …)."
        )


def _notes(path: Path, file: TensorFile, settings: AdapterSettings, found: LoraCheckpoint) -> Iterator[str]:
    if settings.doubles_attention_output and any(ATTENTION_OUTPUT in one.factor_a for one in found.adapted.values()):
        yield f"{shown(path.name)}: PEFT adds the out_proj deltas of this adapter twice, and so do we."
    if copies := len(file.infos) - len(factor_keys(file)):
        yield f"{shown(path.name)}: the file also holds {copies} copies of the base's weights, which are not read."
    if (path / "non_lora_trainables.bin").exists():
        yield "The file non_lora_trainables.bin beside the adapter is not read."


def _adapted(file: TensorFile, settings: AdapterSettings, experts: Seen | None = None) -> list[Adapted]:
    """Pair the factors of a file and check each pair; ``experts`` is what the base tells of packed ones."""
    pairs: dict[str, dict[str, str]] = {}
    for key in factor_keys(file):
        match = FACTOR.fullmatch(key) or EMBEDDING_FACTOR.fullmatch(key)
        if match is None:
            if PART.search(key):
                raise InputError(f"The adapter {shown(file.path)} holds {shown(key)}, which is no factor of a kind that is read.")
            continue
        pair = pairs.setdefault(match["module"], {})
        if match["side"] in pair:
            two = f"two factors {match['side']} of {shown(match['module'])}"
            raise InputError(f"Expected one adapter in {shown(file.path)}, found {two}.")
        pair[match["side"]] = key
    products = _products(file, settings)
    if not pairs and products:
        return products
    if not pairs:
        raise InputError(f"Expected LoRA factors in {shown(file.path)}, found none.")
    magnitudes = {match["module"]: key for key in file.infos if (match := MAGNITUDE.fullmatch(key))}
    packed = _packed(settings, pairs)
    apart = list(experts_of(file, settings, list(packed.values()), experts)) if packed else []
    own = [_one_adapted(file, settings, module, pairs, magnitudes.get(module, "")) for module in pairs if module not in packed]
    return [*own, *apart]


def _packed(settings: AdapterSettings, pairs: dict[str, dict[str, str]]) -> dict[str, Pair]:
    """The pairs of factors that belong to a bare parameter, by their module."""
    modules = [module.removeprefix(PEFT_PREFIX) for module in pairs] if settings.parameters else []
    found: dict[str, Pair] = {}
    for module, keys in pairs.items() if settings.parameters else ():
        known = named(module.removeprefix(PEFT_PREFIX), settings, modules)
        if known and len(keys) == 2:
            found[module] = Pair(*known, keys["A"], keys["B"], (saved_key(keys["A"]), saved_key(keys["B"])))
    return found


def _products(file: TensorFile, settings: AdapterSettings) -> list[Adapted]:
    """What PEFT's LoHa and LoKr adapt."""
    found: list[Adapted] = []
    for module, parts in products_of(file).items():
        name = module.removeprefix(PEFT_PREFIX)
        saved = (f"{PEFT_PREFIX}{name}.lora_A.weight", f"{PEFT_PREFIX}{name}.lora_B.weight")
        found.append(replace(product(file, name, parts, f"{name}.weight", saved), scale=settings.scale_of(name)))
    return found


def _one_adapted(
    file: TensorFile, settings: AdapterSettings, module: str, pairs: dict[str, dict[str, str]], magnitude: str
) -> Adapted:
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
    transposed = is_embedding or (settings.fan_in_fan_out and not in_attention and len(file.infos[pair["A"]].shape) == 2)
    _check_factors(file, pair, name, settings.rank_of(owner))
    times = 2 if name != owner and settings.doubles_attention_output else 1
    saved = saved_key(pair["A"]), saved_key(pair["B"])
    scale = times * settings.scale_of(owner)
    return Adapted(weight, pair["A"], pair["B"], scale, transposed, owner, times, saved, "", magnitude)


def _check_factors(file: TensorFile, pair: dict[str, str], name: str, rank: int) -> None:
    a, b = file.infos[pair["A"]], file.infos[pair["B"]]
    shapes = f"{a.shape} and {b.shape}"
    if len(a.shape) < 2 or len(b.shape) != len(a.shape) or any(size != 1 for size in b.shape[2:]):
        raise InputError(f"The adapter {shown(file.path)} adapts {shown(name)}, which is not a matrix: factors {shapes}.")
    if a.shape[0] != rank or b.shape[1] != rank:
        what = f"factors of rank {rank} for {shown(name)}, as {ADAPTER_CONFIG} says"
        raise InputError(f"Expected {what}, got {shapes} in {shown(file.path)}.")
    if not (a.dtype.is_floating_point and b.dtype.is_floating_point):
        raise InputError(f"Expected floating-point factors of {shown(name)}, got {a.dtype} and {b.dtype} in {shown(file.path)}.")
