"""Checkpoints as people have them on disk: point at a folder, and see which base and which experts are in it."""

from dcmerge.sets.layouts.found import FoundSet, Skipped
from dcmerge.sets.layouts.peek import Peek, glance, peek
from dcmerge.sets.layouts.search import Search, by_name, find_sets, search

__all__ = ["FoundSet", "Peek", "Search", "Skipped", "by_name", "find_sets", "glance", "peek", "search"]
