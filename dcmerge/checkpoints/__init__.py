"""Open any checkpoint safely and lazily, save tensors one by one, and keep to the folders that were allowed."""

from dcmerge.checkpoints.base import Checkpoint, StoredCheckpoint, TensorInfo
from dcmerge.checkpoints.lora import LoraCheckpoint
from dcmerge.checkpoints.low_rank import LowRank, dense, scaled_sum, total
from dcmerge.checkpoints.names import align, common_prefix
from dcmerge.checkpoints.opening import open_checkpoint
from dcmerge.checkpoints.roots import Roots
from dcmerge.checkpoints.writing import write_safetensors

__all__ = [
    "Checkpoint",
    "LoraCheckpoint",
    "LowRank",
    "Roots",
    "StoredCheckpoint",
    "TensorInfo",
    "align",
    "common_prefix",
    "dense",
    "open_checkpoint",
    "scaled_sum",
    "total",
    "write_safetensors",
]
