"""Names in a PEFT adapter's file: which are factors, which were trained in full, and what the settings promise of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dcmerge.checkpoints.adapter_settings import AdapterSettings
from dcmerge.checkpoints.base import TensorFile
from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError

PEFT_PREFIX = "base_model.model."
# "lora_A.weight" as saved, "lora_A.default.weight" as in the live module.
FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.(?P<adapter>[^.]+))?\.weight")
EMBEDDING_FACTOR = re.compile(r"(?P<module>.+)\.lora_embedding_(?P<side>[AB])(\.(?P<adapter>[^.]+))?")
ATTENTION_OUTPUT = ".base_layer.out_proj"
COPY = ".base_layer.weight"
MAGNITUDE = re.compile(r"(?P<module>.+)\.lora_magnitude_vector(\.[^.]+)?(\.weight)?")
#: How PEFT's live module calls a module that is saved whole, and what it keeps of the base beside it.
_SAVED_MODULE, _ORIGINAL = re.compile(r"\.modules_to_save(\.[^.]+(?=\.))?"), ".original_module."
_IN_PRODUCT = re.compile(r"\.(hada|lokr)_[wt][12]")
#: Parts of adapters that are neither factors nor whole tensors.
PART = re.compile(
    r"lora_[AB]\.(.+\.)?bias|\.(lora_(?!magnitude|embedding|A|B)|token_adapter|trainable_tokens|oft_|boft_|vera_|ia3_)"
)


def saved_key(key: str) -> str:
    """The name under which a factor of that name is written."""
    match = FACTOR.fullmatch(key) or EMBEDDING_FACTOR.fullmatch(key)
    assert match is not None  # only such keys become an Adapted
    form = ".lora_{}.weight" if match.re is FACTOR else ".lora_embedding_{}"
    return PEFT_PREFIX + match["module"].removeprefix(PEFT_PREFIX) + form.format(match["side"])


def is_adapter_key(name: str) -> bool:
    """Whether a tensor of that name belongs to a LoRA adapter."""
    return bool(FACTOR.fullmatch(name) or EMBEDDING_FACTOR.fullmatch(name))


def factor_keys(file: TensorFile) -> list[str]:
    """Names of the file without the copies of the base's own weights that PEFT saves beside adapted embeddings and heads."""
    adapted = {match["module"] for key in file.infos if (match := FACTOR.fullmatch(key) or EMBEDDING_FACTOR.fullmatch(key))}
    return [key for key in file.infos if not (key.endswith(COPY) and key.removesuffix(COPY) in adapted)]


def whole_in(file: TensorFile) -> dict[str, str]:
    """The weight's name -> the name in the file, of tensors that were trained in full beside the factors."""
    found: dict[str, str] = {}
    for key in factor_keys(file):
        if (
            not is_adapter_key(key)
            and not _IN_PRODUCT.search(key)
            and not MAGNITUDE.fullmatch(key)
            and _ORIGINAL not in key
            and not PART.search(key)
        ):
            weight = _SAVED_MODULE.sub("", key.removeprefix(PEFT_PREFIX)).replace(".base_layer.", ".")
            # With bias "all" PEFT saves the bias of such a module twice.
            if weight not in found or not _SAVED_MODULE.search(key):
                found[weight] = key
    return {weight: key for weight, key in found.items() if file.infos[key].dtype.is_floating_point}


def check_whole(path: Path, settings: AdapterSettings, whole: Iterable[str], adapted: set[str]) -> None:
    """What the settings say of tensors that were trained in full must be what the file holds."""
    names = list(whole)
    parts = {part for name in names for part in _parts_of(name)}
    # PEFT names both usual heads of a classifier, of which a model has one.
    if settings.saved and not parts & {*settings.saved}:
        told = f"the settings name {shown(', '.join(settings.saved))} as trained in full (modules_to_save)"
        raise InputError(f"The adapter {shown(path)} is incomplete: {told}, and the file holds none of them.")
    for name in names if settings.bias == "none" else ():
        module, _, last = name.rpartition(".")
        if last == "bias" and f"{module}.weight" in adapted and not {*_parts_of(name)} & {*settings.saved}:
            told = "whose settings say that no bias was trained (bias: none)"
            raise InputError(f"The adapter {shown(path)} holds {shown(name)}, {told}.")


def _parts_of(name: str) -> Iterator[str]:
    """A module's name and every end of it, whole parts: "a.b", "b"; those of the modules around it, too."""
    parts = name.split(".")[:-1]
    for stop in range(len(parts), 0, -1):
        yield from (".".join(parts[start:stop]) for start in range(stop))
