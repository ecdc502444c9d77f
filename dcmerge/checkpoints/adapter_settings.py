"""``adapter_config.json`` of a PEFT LoRA adapter: which scale belongs to which module, and what we cannot read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import re2

from dcmerge.checkpoints.paths import read_json, shown
from dcmerge.errors import InputError

#: What PEFT calls the adapters that are read; the two others are products of products.
KINDS = ("LORA", "LOHA", "LOKR")
# Settings under which the delta is not scale * B @ A of the named weights. Off is null, false or empty.
UNSUPPORTED = {
    "lora_bias": "biases of the factors (lora_bias)",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "BD-LoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "arrow_config": "Arrow routing",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "layer replication",
    "trainable_token_indices": "trainable tokens",
}
# These initialisations subtract something from the base's own weights, so B @ A alone is not expert minus base.
CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Settings that leave out some of the modules that are named as targets.
LIMITS = ("layers_to_transform", "exclude_modules")
# PEFT up to this version adds the delta of an attention's output projection twice, in training as in merging
# (https://github.com/huggingface/peft/pull/3774), so that is what its adapters have learned.
LAST_VERSION_THAT_DOUBLES = (0, 21)
#: PEFT up to this version takes the matrices of packed experts as (in, out), whatever the model; later those of these models.
LAST_VERSION_THAT_TURNS = (0, 18)
STORED_TURNED = ("GptOss", "OpenAIPrivacyFilter", "Aria")
#: A pattern a module, of the largest models.
_MOST_PATTERNS = 1 << 14
#: Beyond these there is no adapter, and float32 could not hold its delta.
_HIGHEST_RANK, _HIGHEST_ALPHA = 1 << 20, 1e30
_RE2 = re2.Options()
_RE2.log_errors = False

Value = TypeVar("Value")


@dataclass(frozen=True)
class AdapterSettings:
    """What of a LoRA configuration decides the delta; names are PEFT's.

    https://huggingface.co/docs/peft/package_reference/lora
    """

    r: int
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    peft_version: str = ""
    #: The modules' names where they are a plain list, of all layers; else None.
    targets: tuple[str, ...] | None = None
    #: Names of modules that were trained in full beside the factors, and which biases were: "none", "all" or "lora_only".
    saved: tuple[str, ...] = ()
    bias: str = "none"
    #: Parameters that are adapted without being the weight of a layer: the packed experts of mixtures.
    parameters: tuple[str, ...] = ()
    #: The base that it was trained on, as its settings name it, and the class of the model.
    base_name: str = ""
    trained_class: str = ""

    @classmethod
    def open(cls, path: Path) -> AdapterSettings:
        """Read and check a configuration; InputError names what is wrong or not supported."""
        config = read_json(path)
        kind = config.get("peft_type")
        if kind not in KINDS:
            raise InputError(f"Expected a LoRA adapter (peft_type {', '.join(KINDS)}), got {shown(kind)} in {shown(path)}.")
        for key, title in UNSUPPORTED.items():
            if config.get(key):
                raise InputError(f"The adapter {shown(path.parent)} uses {title}, which is not supported.")
        start = config.get("init_lora_weights", True)
        if isinstance(start, str) and start.lower().startswith(CHANGES_THE_BASE):
            raise InputError(
                f"The adapter {shown(path.parent)} was initialised with {shown(start)}, which changes the base's own "
                "weights; save it with PEFT's path_initial_model_for_weight_conversion to make it a plain LoRA."
            )
        try:
            return cls(
                r=_rank(config.get("r")),
                lora_alpha=_number(config.get("lora_alpha" if kind == "LORA" else "alpha")),
                use_rslora=bool(config.get("use_rslora")),
                use_dora=bool(config.get("use_dora")),
                fan_in_fan_out=bool(config.get("fan_in_fan_out")),
                rank_pattern={_pattern(key): _rank(value) for key, value in _table(config.get("rank_pattern"))},
                alpha_pattern={_pattern(key): _number(value) for key, value in _table(config.get("alpha_pattern"))},
                peft_version=str(config.get("peft_version") or ""),
                targets=_targets(config),
                saved=_saved(config.get("modules_to_save")),
                bias=_text(config.get("bias")) or "none",
                parameters=_parameters(config.get("target_parameters")),
                base_name=_text(config.get("base_model_name_or_path")),
                trained_class=_text(_mapping(config.get("auto_mapping")).get("base_model_class")),
            )
        except ValueError as error:
            raise InputError(f"The adapter configuration {shown(path)} is damaged: {error}.") from None

    def rank_of(self, module: str) -> int:
        """The rank of a module of the base model."""
        return _match(self.rank_pattern, module, self.r)

    def scale_of(self, module: str) -> float:
        """What B @ A is multiplied by: alpha / r, or alpha / sqrt(r) with rank-stabilised LoRA (arXiv 2312.03732)."""
        rank = self.rank_of(module)
        alpha = _match(self.alpha_pattern, module, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def parameters_of(self, module: str) -> list[str]:
        """The parameters of a module that are adapted as such, by name; PEFT matches the ends of their names."""
        found = dict.fromkeys(one.rpartition(".")[2] for one in self.parameters if _ends_with(module, one.rpartition(".")[0]))
        return list(found)

    @property
    def turns_experts(self) -> bool | None:
        """Whether the delta of packed experts is (A B)ᵀ; None where the settings do not tell.

        PEFT up to 0.18 took every packed matrix as (in, out); since then a model says whether it has them so.
        """
        version = re.match(r"(\d+)\.(\d+)", self.peft_version)
        if version and (int(version[1]), int(version[2])) <= LAST_VERSION_THAT_TURNS:
            return True
        return self.trained_class.startswith(STORED_TURNED) if self.trained_class else None

    @property
    def doubles_attention_output(self) -> bool:
        """Whether the PEFT that wrote this adds the delta of ``nn.MultiheadAttention.out_proj`` twice.

        Old versions do, and do not write their number.
        """
        version = re.match(r"(\d+)\.(\d+)", self.peft_version)
        return version is None or (int(version[1]), int(version[2])) <= LAST_VERSION_THAT_DOUBLES


def _ends_with(module: str, end: str) -> bool:
    return not end or module == end or module.endswith(f".{end}")


def _match(patterns: Mapping[str, Value], module: str, default: Value) -> Value:
    """The first pattern that matches the end of the module's name, as PEFT's get_pattern_key does."""
    for pattern, value in patterns.items():
        if _compiled(pattern).fullmatch(module):
            return value
    return default


@lru_cache(maxsize=1 << 15)
def _compiled(pattern: str) -> Any:
    """Matches in time that is linear in the name: Python's own ``re`` takes years for "(a+)+b"."""
    return re2.compile(rf"(.*\.)?({pattern})", _RE2)


def _rank(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected a rank, a whole number of at least 1, got {_kind(value)}")
    if value > _HIGHEST_RANK:
        raise ValueError(f"expected a rank of at most {_HIGHEST_RANK}, got {_kind(value)}")
    return value


def _number(value: object) -> float:
    # Not isfinite: it fails of a whole number that no double can hold.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _HIGHEST_ALPHA:
        raise ValueError(f"expected a finite lora_alpha, a number below {_HIGHEST_ALPHA:g}, got {_kind(value)}")
    return float(value)


def _kind(value: object) -> str:
    """A value in a message, with what it is where that is what is wrong."""
    text = shown(value)
    text = text if len(text) <= 50 else f"{text[:50]}... ({len(text)} characters)"
    what = "the text " if isinstance(value, str) else "the truth value " if isinstance(value, bool) else ""
    return "nothing" if value is None else f'{what}"{text}"' if isinstance(value, str) else f"{what}{text}"


def _targets(config: Mapping[str, object]) -> tuple[str, ...] | None:
    targets = config.get("target_modules")
    if not isinstance(targets, list) or not targets or any(config.get(key) for key in LIMITS):
        return None
    return tuple(targets) if all(isinstance(name, str) for name in targets) else None


def _saved(value: object) -> tuple[str, ...]:
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list) else ()


def _parameters(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value) or len(value) > _MOST_PATTERNS:
        raise ValueError(f"expected target_parameters as a list of names, got {_kind(value)}")
    return tuple(sorted(value))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _pattern(key: str) -> str:
    try:
        _compiled(key)
    except (re2.error, UnicodeEncodeError):
        told = "a regular expression that can be matched in linear time (no look-ahead, no back-reference)"
        raise ValueError(f"expected {told}, got {shown(key)[:100]}") from None
    return key


def _table(value: object) -> list[tuple[str, object]]:
    if value is None:
        return []
    if not isinstance(value, dict):
        raise ValueError(f"expected a table of patterns, got {shown(value)}")
    if len(value) > _MOST_PATTERNS:
        raise ValueError(f"expected at most {_MOST_PATTERNS} patterns, got {len(value)}")
    return list(value.items())
