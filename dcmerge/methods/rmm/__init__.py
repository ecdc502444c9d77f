"""Reinforced Model Merging: a policy that learns to choose whole blocks; importing this package registers the method."""

from dcmerge.methods.rmm.method import rmm

__all__ = ["rmm"]
