"""Merging methods, one module each; importing this package registers them all."""

# The order of these imports is the order of the catalogue.
# isort: skip_file
from dcmerge.methods import (  # noqa: F401  (imported to register)
    average,
    task_arithmetic,
    ties,
    tsv_m,
    iso_c,
    iso_cts,
    dc_merge,
)
from dcmerge.methods.registry import Method, merged_deltas, merging_method, method, methods

__all__ = ["Method", "merged_deltas", "merging_method", "method", "methods"]
