"""Merging methods, one module each; importing this package registers them all."""

from dcmerge.methods import (  # noqa: F401  (imported to register, in the catalogue's order)
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
