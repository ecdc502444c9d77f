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
from dcmerge.methods.loop import deltas_of, merged_deltas, planned
from dcmerge.methods.origins import Origin
from dcmerge.methods.plugins import load_named, load_plugin, plugin_notes
from dcmerge.methods.registry import NEEDS, Method, fitting_methods, merging_method, method, methods

__all__ = [
    "NEEDS",
    "Method",
    "Origin",
    "deltas_of",
    "fitting_methods",
    "load_named",
    "load_plugin",
    "merged_deltas",
    "merging_method",
    "method",
    "methods",
    "planned",
    "plugin_notes",
]
