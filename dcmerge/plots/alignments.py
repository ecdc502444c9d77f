"""Figures of the cover basis: overlap of experts, aligned deltas, directional consistency over depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
from torch import Tensor

from dcmerge.methods import methods
from dcmerge.plots.style import ALIGNED, SCALE, colour_bar, faint, known, method_looks, titled
from dcmerge.studies.inspection import Consistency, LayerAlignment
from dcmerge.vectors.naming import place_of

#: Aligned deltas wider than this are drawn as maxima of equal squares.
MAX_CELLS = 192


def overlap_map(alignment: LayerAlignment, side: str, stage: str, titles: Sequence[str]) -> go.Figure:
    """Overlap of the experts' subspaces (T x T), side "U" (outputs) or "V" (inputs), at a stage of whitening.

    "before": each expert against each. "after": each whitened block (rows) against each expert.
    """
    table = getattr(alignment, f"{stage}_{side}").tolist()
    figure = go.Figure(
        go.Heatmap(
            z=table,
            x=list(titles),
            y=list(titles),
            colorscale=SCALE,
            zmin=0,
            zmax=1,
            colorbar=colour_bar("overlap, 0 to 1"),
            text=[[f"{value:.2f}" for value in row] for row in table],
            texttemplate="%{text}" if len(titles) <= 10 else None,
            hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    name = {"U": "output", "V": "input"}[side]
    title = f"Overlap of the experts' {name} subspaces {stage} whitening"
    return titled(figure, title, "expert", {"before": "expert", "after": "block"}[stage], 430)


def aligned_delta_map(alignment: LayerAlignment, task: int, title: str, tasks: Sequence[str]) -> go.Figure:
    """log10 |M_t| in the cover basis with the block grid; entries that survive the keep are marked."""
    stages = alignment.stages
    M, kept = stages.aligned[task].abs(), stages.kept[task]
    pool = -(-M.shape[0] // MAX_CELLS)
    z = _maxima(M, pool).clamp_min(1e-12).log10()
    centre = [(i + 0.5) * pool - 0.5 for i in range(z.shape[0])]
    figure = go.Figure(
        go.Heatmap(
            z=z.round(decimals=2).tolist(),
            x=centre,
            y=centre,
            colorscale=SCALE,
            zmin=z.max().item() - 4,
            zmax=z.max().item(),
            colorbar=colour_bar("log₁₀ |M|"),
            hovertemplate="row %{y}, column %{x}: 10^%{z}<extra></extra>",
        )
    )
    kept_text = f"{int(kept.sum())} of {kept.numel():,} entries kept"
    rows, columns = kept.nonzero(as_tuple=True)
    figure.add_scatter(
        x=columns.tolist(),
        y=rows.tolist(),
        mode="markers",
        name=kept_text,
        marker={"symbol": "circle-open", "size": 7, "color": ALIGNED, "line": {"width": 1.5}},
        showlegend=False,
        hovertemplate="kept: row %{y}, column %{x}<extra></extra>",
    )
    block = stages.basis.block
    for border in range(block, M.shape[0], block):
        for line in (figure.add_vline, figure.add_hline):
            line(border - 0.5, line={"width": 1, "color": "rgba(255,255,255,.55)"})
    ticks = {"tickvals": [(t + 0.5) * block - 0.5 for t in range(len(tasks))], "ticktext": list(tasks)}
    edge = M.shape[0] - 0.5
    figure.update_xaxes(**ticks, tickangle=-40, showgrid=False, range=[-0.5, edge], constrain="domain", constraintoward="left")
    figure.update_yaxes(**ticks, showgrid=False, range=[edge, -0.5], scaleanchor="x", constrain="domain", constraintoward="top")
    pooled = f"; each cell is the largest of {pool} x {pool} entries" if pool > 1 else ""
    return titled(
        figure,
        f"Aligned delta of {title} in the cover basis, {kept_text}{pooled}",
        "input directions, by owner",
        "output directions, by owner",
        600,
    )


def _maxima(M: Tensor, pool: int) -> Tensor:
    if pool == 1:
        return M
    return torch.nn.functional.max_pool2d(M[None, None], pool, ceil_mode=True)[0, 0]


def block_energy_map(alignment: LayerAlignment, titles: Sequence[str]) -> go.Figure:
    """Where each task's energy lies: share of ‖M_t‖² in the diagonal blocks (columns), and outside all of them."""
    T = len(titles)
    diagonal = torch.stack([torch.diagonal(alignment.energy[t]) for t in range(T)])
    table = 100 * torch.cat([diagonal, 1 - diagonal.sum(dim=1, keepdim=True)], dim=1)
    figure = go.Figure(
        go.Heatmap(
            z=table.tolist(),
            x=[*(f"block {t}" for t in titles), "off the diagonal (masked)"],
            y=list(titles),
            colorscale=SCALE,
            zmin=0,
            zmax=100,
            text=[[f"{v:.0f}" for v in row] for row in table.tolist()],
            texttemplate="%{text}",
            colorbar=colour_bar("% of ‖M‖²"),
            hovertemplate="%{y} in %{x}: %{z:.1f} %<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(tickangle=-30)
    return titled(figure, "Where each aligned delta's energy (sum of squares) lies", "block of the cover basis", "task", 430)


def consistency_lines(results: Mapping[str, Consistency], measure: str) -> go.Figure:
    """Merged against expert over depth, a line a method: mean over experts, with the range over experts as a band.

    Lines end where nothing is known yet (NaN).
    """
    figure = go.Figure()
    slugs = {one.title: slug for slug, one in methods().items()}
    looks = method_looks([slugs.get(method, method) for method in results])
    for (method, result), (colour, dash) in zip(results.items(), looks, strict=True):
        x = [place_of(name).label for name in result.layers]
        table = result.measures[measure]
        ends = (table.amin(dim=0), table.amax(dim=0), table.mean(dim=0))
        low, high, mean = (list(map(known, values.tolist())) for values in ends)
        for y, which, fill in ((low, "lowest", None), (high, "highest", "tonexty")):
            figure.add_scatter(
                x=x,
                y=y,
                mode="lines",
                fill=fill,
                fillcolor=faint(colour, 0.12),
                line={"width": 0},
                name=f"{method}, {which} expert",
                showlegend=False,
                legendgroup=method,
                hovertemplate="%{x}: %{y:.3f}",
            )
        figure.add_scatter(
            x=x,
            y=mean,
            mode="lines+markers",
            name=method,
            legendgroup=method,
            line={"color": colour, "width": 2, "dash": dash},
            hovertemplate="%{x}: %{y:.3f}",
        )
    figure.update_xaxes(tickangle=-40)
    figure.update_yaxes(rangemode="tozero")
    return titled(figure, f"{measure} of the merged matrix and each expert, over depth", "matrix, by depth", measure, 470)
