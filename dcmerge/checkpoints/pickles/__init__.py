"""Tensors out of pickles that nobody may run: whole modules, the format before PyTorch 1.6, plain pickle files."""

from dcmerge.checkpoints.pickles.convert import Converted, convert_pickle, pickled_tensors

__all__ = ["Converted", "convert_pickle", "pickled_tensors"]
