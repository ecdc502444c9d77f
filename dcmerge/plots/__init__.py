"""Plotly figures from result objects. No Streamlit here, and no mathematics: every number comes in ready."""

from dcmerge.plots.accuracies import accuracy_bars, comparison_bars, reached_bars, scale_curve
from dcmerge.plots.alignments import aligned_delta_map, block_energy_map, consistency_lines, overlap_map
from dcmerge.plots.comparisons import accuracy_against_cost, dirsim_bars, drift_lines, loss_lines, normalised_map
from dcmerge.plots.sequels import sequel_lines
from dcmerge.plots.spectra import concentration_map, cumulative_lines, layer_overview, spectrum_facets

__all__ = [
    "accuracy_against_cost",
    "accuracy_bars",
    "aligned_delta_map",
    "block_energy_map",
    "comparison_bars",
    "concentration_map",
    "consistency_lines",
    "cumulative_lines",
    "dirsim_bars",
    "drift_lines",
    "layer_overview",
    "loss_lines",
    "normalised_map",
    "overlap_map",
    "reached_bars",
    "scale_curve",
    "sequel_lines",
    "spectrum_facets",
]
