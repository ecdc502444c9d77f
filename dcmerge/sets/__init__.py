"""Sets of models as people have them: layouts on disk, sets by name, sets that are remembered."""
