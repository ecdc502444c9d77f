"""``dcmerge spectra``: the singular values of every layer's deltas, raw and smoothed, in key figures or whole."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from dcmerge.cli.options import Commands, Parser, add_command, add_model_set, number, open_vectors, whole_number
from dcmerge.cli.output import Progress, percent, print_json, printable, qkv_lines, table
from dcmerge.errors import InputError
from dcmerge.spectral.spectra import SMOOTHINGS, KeyFigures, key_figures, smooth
from dcmerge.vectors.compatibility import Kind
from dcmerge.vectors.layers import Layer, layer_of
from dcmerge.vectors.task_vectors import TaskVectors

TOP_FRACTION = 0.05
HEADER = ("task", "components", "s_1", "sum s", "effective rank", "stable rank", "top 5 % of sum s²", "kept", "s̄_1/s̄_r")


@dataclass(frozen=True)
class Spectrum:
    """One task's spectrum in one layer: all singular values, the kept ones smoothed, the figures of the raw ones."""

    singular_values: Tensor
    smoothed: Tensor
    figures: KeyFigures

    @property
    def smoothed_ratio(self) -> float | None:
        """s̄_1/s̄_r of the smoothed kept values; None without any, or where the last is zero."""
        kept = self.smoothed
        return (kept[0] / kept[-1]).item() if kept.numel() and kept[-1] > 0 else None

    def to_dict(self) -> dict[str, object]:
        figures = asdict(self.figures)
        figures[f"top_{round(100 * TOP_FRACTION)}_percent_share_of_sum_of_squares"] = figures.pop("top_share")
        values = {"singular_values": self.singular_values.tolist(), "smoothed": self.smoothed.tolist()}
        return figures | {"kept_rank": self.smoothed.numel(), "smoothed_ratio": self.smoothed_ratio, **values}


def add_to(commands: Commands, common: Parser) -> None:
    parser = add_command(
        commands,
        common,
        "spectra",
        run,
        example="--zoo demo --layer '*attn*' --smoothing linear --rho 5",
    )
    add_model_set(parser)
    group = parser.add_argument_group("spectra")
    group.add_argument("--layer", metavar="GLOB", help="matrices whose name fits, such as '*mlp.c_fc*' (default: all)")
    group.add_argument("--smoothing", choices=SMOOTHINGS, default="none", help="how the kept values are flattened")
    group.add_argument(
        "--rho", type=number, default=5.0, metavar="R", help="linear smoothing: at most this largest / smallest value (default 5)"
    )
    group.add_argument(
        "--rank",
        type=whole_number(1),
        metavar="N",
        help="components kept of each delta, at most min(m, n) / T (default: floor(min(m, n) / T), or the adapter's rank)",
    )


def run(args: argparse.Namespace) -> int:
    with Progress() as progress:
        vectors = open_vectors(args, progress)
        names = matching(vectors, args.layer)
        layers = []
        for done, name in enumerate(names):
            progress(done / len(names), name)
            layer = layer_of(vectors, name)
            layers.append((layer, dict(spectra_of(layer, args.smoothing, args.rho, args.rank))))
    if args.json:
        settings = {"smoothing": args.smoothing, "rho": args.rho, "kind": vectors.kind, "qkv": vectors.qkv}
        print_json({**settings, "layers": [_layer_dict(layer, spectra) for layer, spectra in layers]})
    else:
        rho = f" with ρ = {args.rho:g}" if args.smoothing == "linear" else ""
        print("\n".join([*qkv_lines(vectors.qkv, vectors.qkv_stored), f"Smoothing of the kept values: {args.smoothing}{rho}"]))
        print("\n".join(_layer_text(layer, spectra) for layer, spectra in layers))
    return 0


def matching(vectors: TaskVectors, pattern: str | None) -> list[str]:
    """Names of the matrices that fit a glob; raises InputError where none does."""
    matrices = [name for name, parameter in vectors.parameters.items() if parameter.kind is Kind.MATRIX]
    names = [name for name in matrices if pattern is None or fnmatchcase(name, pattern)]
    if not matrices:
        raise InputError("expected a set with matrices, got one without any")
    if not names:
        some = f"one of {len(matrices)} matrices such as {matrices[0]}"
        raise InputError(f"layer: expected a glob that fits {some}, got {pattern!r}")
    return names


def spectra_of(layer: Layer, smoothing: str, rho: float, rank: int | None) -> Iterator[tuple[str, Spectrum]]:
    """Task and spectrum, in task order; the values of the leading ``rank`` components are smoothed."""
    spectra = layer.spectra()  # first: a smaller rank then reuses its factors
    for task, svd, values in zip(layer.tasks, layer.factors(layer.rank(rank)), spectra, strict=True):
        yield task, Spectrum(values, smooth(svd.s, smoothing, rho), key_figures(values, TOP_FRACTION))


def _layer_dict(layer: Layer, spectra: dict[str, Spectrum]) -> dict[str, object]:
    return {"name": layer.name, "shape": layer.shape, "tasks": {task: s.to_dict() for task, s in spectra.items()}}


def _layer_text(layer: Layer, spectra: dict[str, Spectrum]) -> str:
    rows = [[task, *_figures(spectrum)] for task, spectrum in spectra.items()]
    return f"\n{printable(layer.name)}  {' x '.join(map(str, layer.shape))}\n" + table(HEADER, rows, indent=2)


def _figures(spectrum: Spectrum) -> list[object]:
    """The columns of ``HEADER`` after the task."""
    f, ratio = spectrum.figures, spectrum.smoothed_ratio
    ranks = [f"{f.effective_rank:.1f}", f"{f.stable_rank:.1f}"]
    kept = [spectrum.smoothed.numel(), None if ratio is None else f"{ratio:.3g}"]
    return [f.components, f"{f.largest:.4g}", f"{f.sum:.4g}", *ranks, f"{percent(f.top_share)} %", *kept]
