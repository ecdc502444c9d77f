"""Open any checkpoint safely and lazily, save tensors one by one, and keep to the folders that were allowed."""

from dcmerge.checkpoints.adapted import Adapted, OfExpert
from dcmerge.checkpoints.base import Checkpoint, StoredCheckpoint, TensorInfo
from dcmerge.checkpoints.folders import check_folder, check_text_target, new_folder, write_text
from dcmerge.checkpoints.lora import ADAPTER_CONFIG, PEFT, LoraCheckpoint
from dcmerge.checkpoints.low_rank import LowRank, dense, scaled_sum, total
from dcmerge.checkpoints.names import align, aligned, common_prefix
from dcmerge.checkpoints.opening import INDEX_SUFFIX, open_checkpoint
from dcmerge.checkpoints.paths import read_json, shown
from dcmerge.checkpoints.roots import Roots
from dcmerge.checkpoints.suffixes import SAFETENSORS_SUFFIX
from dcmerge.checkpoints.writing import GrowingWriter, SafetensorsWriter, write_safetensors

__all__ = [
    "ADAPTER_CONFIG",
    "INDEX_SUFFIX",
    "PEFT",
    "SAFETENSORS_SUFFIX",
    "Adapted",
    "Checkpoint",
    "GrowingWriter",
    "LoraCheckpoint",
    "LowRank",
    "OfExpert",
    "Roots",
    "SafetensorsWriter",
    "StoredCheckpoint",
    "TensorInfo",
    "align",
    "aligned",
    "check_folder",
    "check_text_target",
    "common_prefix",
    "dense",
    "new_folder",
    "open_checkpoint",
    "read_json",
    "scaled_sum",
    "shown",
    "total",
    "write_safetensors",
    "write_text",
]
