"""The candidates, and networks put together from their blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dcmerge.checkpoints import dense
from dcmerge.evaluation import Assembly, Bench, ImageEncoder, Split
from dcmerge.methods.dare import kept_at_random
from dcmerge.methods.loop import merged_deltas
from dcmerge.methods.rmm.game import Chain
from dcmerge.spectral.alignment import elected
from dcmerge.vectors.layers import Layer

_PREFIX = "visual.transformer.resblocks."
_BLOCK = re.compile(re.escape(_PREFIX) + r"(\d+)\.(.+)")
#: Densities of the authors' code.
_TIES_DENSITY, _DARE_DENSITY = 0.3, 0.66

#: Which merged models stand beside the experts, the first one giving all that is not a block.
MERGED = {"ties": ("TIES",), "dare": ("DARE",), "dare_ties": ("DARE-TIES", "TIES", "DARE")}


def merged_candidates(layers: Sequence[Layer], kind: str, seed: int) -> dict[str, dict[str, Tensor]]:
    """Merged task vectors by name, dense, in the order of MERGED."""
    vectors, dtype = layers[0].vectors, layers[0].dtype

    def registered(slug: str, **parameters: float | str) -> dict[str, Tensor]:
        return {name: dense(delta) for name, delta in merged_deltas(vectors, slug, parameters, dtype=dtype)}

    make = {
        "TIES": lambda: registered("ties", density=_TIES_DENSITY, aggregate="sum"),
        "DARE": lambda: registered("dare", density=_DARE_DENSITY, seed=seed),
        "DARE-TIES": lambda: {layer.name: dare_ties(layer, _DARE_DENSITY, seed) for layer in layers},
    }
    return {name: make[name]() for name in MERGED[kind]}


def dare_ties(layer: Layer, density: float, seed: int) -> Tensor:
    """The sum, per entry, of what DARE keeps and what agrees in sign with the sum of it."""
    return elected(torch.stack(kept_at_random(layer, density, seed)), aggregate="sum")


@dataclass(frozen=True, eq=False)
class Blocks:
    """Full weights of every candidate of one encoder by name, and networks of their blocks; ``first`` gives all that is none."""

    encoder: ImageEncoder
    candidates: Mapping[str, Mapping[str, Tensor]]
    first: str
    _encoders: dict[int, ImageEncoder] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.candidates)

    def whole(self, name: str) -> Chain:
        """One candidate's own blocks."""
        return tuple((layer, self.names.index(name)) for layer in range(self.encoder.layers))

    def assembled(self, chain: Chain) -> Assembly:
        """The network of these blocks in order; none at all leaves the identity between embedding and final norm."""
        weights = {name: value for name, value in self.candidates[self.first].items() if not _BLOCK.fullmatch(name)}
        for place, (layer, candidate) in enumerate(chain):
            for name, value in self.candidates[self.names[candidate]].items():
                found = _BLOCK.fullmatch(name)
                if found and int(found[1]) == layer:
                    weights[f"{_PREFIX}{place}.{found[2]}"] = value
        blocks = tuple(f"block {layer} of {self.names[candidate]}" for layer, candidate in chain)
        return Assembly(self._encoder(len(chain)), weights, blocks, self.encoder.layers)

    def _encoder(self, depth: int) -> ImageEncoder:
        if depth not in self._encoders:
            encoder = self.encoder.with_layers(depth)
            with torch.random.fork_rng(devices=[]):
                _ = encoder.visual  # built now: its random start must not depend on, or change, the random numbers of others
            self._encoders[depth] = encoder
        return self._encoders[depth]


def mean_accuracy(bench: Bench, network: Assembly, parts: Mapping[str, Split]) -> float:
    """Mean over tasks of top-1 on these labelled images, each with its task's own head."""
    images = torch.cat([part.images for part in parts.values()])
    features = network.encoder.encode(network.weights, images).split([len(part) for part in parts.values()])
    hits = [
        ((z @ bench.tasks[task].head.T).argmax(dim=1) == part.labels).double().mean()
        for z, (task, part) in zip(features, parts.items(), strict=True)
    ]
    return float(torch.stack(hits).mean())
