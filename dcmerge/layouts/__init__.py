"""Checkpoints as people have them on disk: point at a folder, and see which base and which experts are in it."""

from dcmerge.layouts.found import FoundSet, Skipped
from dcmerge.layouts.peek import Peek, peek
from dcmerge.layouts.search import Search, find_sets, search

__all__ = ["FoundSet", "Peek", "Search", "Skipped", "find_sets", "peek", "search"]
