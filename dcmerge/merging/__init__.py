"""From a method to a file: merge, recipe, run, predict, write; mergekit's language; a merge as command and as Python."""
