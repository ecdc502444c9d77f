"""How files of weights end, and what they are called without that."""

from __future__ import annotations

SAFETENSORS_SUFFIX = ".safetensors"
#: What torch.save wrote: .ckpt is Lightning's, .pth.tar that of timm and of torchvision's training scripts.
STATE_DICT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pth.tar", ".pt.tar", ".ckpt.tar")
WEIGHT_SUFFIXES = (SAFETENSORS_SUFFIX, *STATE_DICT_SUFFIXES)


def weights_suffix(name: str) -> str:
    """The end of a file's name that makes it one of weights; empty where it has none."""
    return next((suffix for suffix in WEIGHT_SUFFIXES if name.endswith(suffix) and len(name) > len(suffix)), "")


def weights_stem(name: str) -> str:
    """The name without that end: "a" of "a.pth.tar"."""
    return name.removesuffix(weights_suffix(name))
