"""Merging methods, one module each; importing this package registers them all."""

# The order of these imports is the order of the catalogue.
# isort: skip_file
from dcmerge.methods import (  # noqa: F401  (imported to register)
    average,
    task_arithmetic,
    ties,
    dare,
    breadcrumbs,
    consensus_ta,
    pcb,
    emr,
    model_stock,
    slerp,
    karcher,
    fisher,
    regmean,
    tsv_m,
    iso_c,
    iso_cts,
    knots,
    wudi,
    dc_merge,
    lot,
    cat,
    opcm,
    doge,
    adamerging,
    concrete,
    adarank,
    surgery,
    intervmerge,
    robustmerge,
    rmm,
    perturb_and_merge,
)
from dcmerge.methods.registry import (
    NEEDS,
    Method,
    deltas_of,
    fitting_methods,
    merged_deltas,
    merging_method,
    method,
    methods,
    planned,
)

__all__ = [
    "NEEDS", "Method", "deltas_of", "fitting_methods", "merged_deltas", "merging_method", "method", "methods", "planned",
]  # fmt: skip
