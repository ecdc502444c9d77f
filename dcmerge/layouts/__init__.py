"""Checkpoints as people have them on disk: point at a folder, and see which base and which experts are in it."""

from dcmerge.layouts.found import FoundSet, Skipped
from dcmerge.layouts.peek import Peek, glance, peek
from dcmerge.layouts.search import Search, by_name, find_sets, search

__all__ = ["FoundSet", "Peek", "Search", "Skipped", "by_name", "find_sets", "glance", "peek", "search"]
