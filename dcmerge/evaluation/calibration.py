"""What data-driven methods need: unlabeled images of every task, and statistics of the inputs that layers see on them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import Bench, ImageEncoder, Split

Progress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """Sums over all tokens x that reach a layer, in float64, by the name of its weight.

    ``grams``: Σ x xᵀ, (d_in, d_in), of linear layers (with the patch embedding and the final projection).
    ``squares``: Σ x̂², (d,), of norms, x̂ before scale and shift. ``tokens``: how many x were summed.
    """

    grams: dict[str, Tensor]
    squares: dict[str, Tensor]
    tokens: dict[str, int]


@dataclass(frozen=True, eq=False)
class Calibration:
    """The images that a method may look at, and how it is watched and stopped."""

    bench: Bench
    progress: Progress | None = None
    cancelled: Callable[[], bool] | None = None
    curve: list[float] = field(default_factory=list)  # the loss of every step, where something is trained

    @property
    def encoder(self) -> ImageEncoder:
        return self.bench.encoder

    def tell(self, share: float, text: str) -> None:
        """Report progress; raises Cancelled where the user has asked for it."""
        if self.cancelled and self.cancelled():
            raise Cancelled
        if self.progress:
            self.progress(share, text)

    def images(self, task: str, count: int, split: str = "val", seed: int = 0) -> Tensor:
        """``count`` images of a task (all, where it has fewer), drawn at random without regard to labels; (N, 3, H, W)."""
        images = self._all_images(task, split)
        draw = torch.Generator().manual_seed(seed)
        return images[torch.randperm(len(images), generator=draw)[:count]]

    def _all_images(self, task: str, split: str) -> Tensor:
        if task not in self.bench.tasks:
            raise InputError(f"expected images of the task {task}, got images of {', '.join(self.bench.tasks)}")
        return self.bench.split(task, split, None).images

    def batches(self, size: int, split: str = "val", seed: int = 0) -> Iterator[dict[str, Tensor]]:
        """Without end: one batch of every task's images (``picks`` says which)."""
        for picks in self.picks(size, split, seed):
            yield {task: self._all_images(task, split)[pick] for task, pick in picks.items()}

    def picks(self, size: int, split: str = "val", seed: int = 0) -> Iterator[dict[str, Tensor]]:
        """Without end: places of one batch of every task, in a new random order of its images every time round."""
        streams = {
            task: _stream(len(self._all_images(task, split)), size, generator_of(task, seed)) for task in self.bench.vectors.tasks
        }
        while True:
            yield {task: next(stream) for task, stream in streams.items()}

    def embeddings(self, weights: Mapping[str, Tensor], task: str, split: str = "val") -> Tensor:
        """What these weights make of all images of a task's split, before lengths are made one; (N, d)."""
        found = []
        with torch.no_grad():
            for batch in self._all_images(task, split).split(self.encoder.batch_size):
                if self.cancelled and self.cancelled():
                    raise Cancelled
                found.append(self.encoder.forward(weights, batch))
        return torch.cat(found)

    def embeddings_of_expert(self, task: str, split: str = "val") -> Tensor:
        """The same of a task's own expert; remembered by the bench."""
        key = ("expert embeddings", task, split)
        return self.bench.memo.get(key, lambda: self.embeddings(self.bench.expert_weights(task), task, split))

    def labelled(self, task: str) -> Split:
        """A task's validation images with their labels, for methods that say they need labels. There is no way to test labels."""
        self._all_images(task, "val")
        return self.bench.split(task, "val", None)

    def labelled_batches(self, task: str, size: int, seed: int = 0) -> Iterator[Split]:
        """Without end: batches of ``labelled``, the images in a new random order every time round."""
        part, draw = self.labelled(task), torch.Generator().manual_seed(seed)
        return (part.take(places) for places in _stream(len(part), size, draw))

    def inputs_of_experts(self, count: int, split: str = "val", seed: int = 0) -> dict[str, LayerInputs]:
        """What the layers of each expert see on its own task's images; remembered by the bench."""
        return self._inputs("experts", self.bench.expert_weights, count, split, seed)

    def inputs_of_steps(self, scale: float, count: int, split: str = "val", seed: int = 0) -> dict[str, LayerInputs]:
        """The same for base + scale · task vector instead of each expert."""
        vectors = self.bench.vectors

        def weights(task: str) -> dict[str, Tensor]:
            return self.bench.merged_weights({name: vectors.delta(name, task) for name in vectors.parameters}, scale)

        return self._inputs(f"steps of {scale}", weights, count, split, seed)

    def _inputs(
        self, what: str, weights: Callable[[str], Mapping[str, Tensor]], count: int, split: str, seed: int
    ) -> dict[str, LayerInputs]:
        found = {}
        for done, task in enumerate(self.bench.vectors.tasks):
            self.tell(done / len(self.bench.vectors.tasks), f"layer inputs of {task}")
            key = ("layer inputs", what, task, count, split, seed)
            found[task] = self.bench.memo.get(
                key, lambda task=task: layer_inputs(self.encoder, weights(task), self.images(task, count, split, seed))
            )
        return found


def generator_of(task: str, seed: int) -> torch.Generator:
    """Random numbers of one task, the same whichever other tasks there are."""
    return torch.Generator().manual_seed(seed + zlib.crc32(task.encode()))


def _stream(count: int, size: int, draw: torch.Generator) -> Iterator[Tensor]:
    order = torch.randperm(count, generator=draw)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=draw)])
        yield order[:size]
        order = order[size:]


@torch.inference_mode()
def layer_inputs(encoder: ImageEncoder, weights: Mapping[str, Tensor], images: Tensor) -> LayerInputs:
    """Stream images through the encoder with these weights and sum up what every layer sees."""
    found = LayerInputs({}, {}, {})
    visual, projection = encoder.visual, None
    own = {name.removeprefix("visual."): weights[name].float() for name in encoder.shapes}
    if getattr(visual, "proj", None) is not None:
        # With the identity in its place the encoder returns what its final projection sees.
        projection, own["proj"] = "visual.proj", torch.eye(own["proj"].shape[0])
    with encoder.turn(), _watched(visual, found):
        for batch in images.split(encoder.batch_size):
            output = functional_call(visual, own, (encoder.pixels(batch),))
            if projection:
                _add_gram(found, projection, output)
    return found


@contextmanager
def _watched(visual: nn.Module, found: LayerInputs) -> Iterator[None]:
    """Hooks on all linear layers and norms of a tower."""
    inside = {f"{name}.out_proj" for name, m in visual.named_modules() if isinstance(m, nn.MultiheadAttention)}
    handles = []
    for name, module in visual.named_modules():
        see = next((see for kind, see in _WATCHED.items() if isinstance(module, kind)), None)
        if see and name not in inside:
            hook = partial(see, found, f"visual.{name}")
            handles.append(module.register_forward_pre_hook(lambda module, args, hook=hook: hook(module, *args)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add_gram(found: LayerInputs, name: str, x: Tensor) -> None:
    rows = x.reshape(-1, x.shape[-1]).double()
    found.grams[name] = found.grams.get(name, 0) + rows.T @ rows
    found.tokens[name] = found.tokens.get(name, 0) + len(rows)


def _see_linear(found: LayerInputs, name: str, module: nn.Linear, x: Tensor) -> None:
    _add_gram(found, f"{name}.weight", x)


def _see_convolution(found: LayerInputs, name: str, module: nn.Conv2d, x: Tensor) -> None:
    """A patch embedding: one row of pixels a patch, which makes it a linear layer exactly. Other convolutions are not seen."""
    if name == "visual.conv1" and module.stride == module.kernel_size and module.groups == 1:
        patches = nn.functional.unfold(x, module.kernel_size, stride=module.stride)
        _add_gram(found, f"{name}.weight", patches.transpose(1, 2))


def _see_norm(found: LayerInputs, name: str, module: nn.LayerNorm, x: Tensor) -> None:
    normal = nn.functional.layer_norm(x, module.normalized_shape, eps=module.eps)
    rows = normal.reshape(-1, x.shape[-1]).double()
    found.squares[f"{name}.weight"] = found.squares.get(f"{name}.weight", 0) + rows.square().sum(dim=0)
    found.tokens[f"{name}.weight"] = found.tokens.get(f"{name}.weight", 0) + len(rows)


def _see_attention(
    found: LayerInputs, name: str, module: nn.MultiheadAttention, x: Tensor, keys: Tensor, values: Tensor, *_: object
) -> None:
    """open_clip's fused attention: its projections never see a module of their own, so its middle is computed here.

    Only of self-attention, where one matrix sees one input.
    """
    if keys is not x or values is not x:
        return
    x = x if module.batch_first else x.transpose(0, 1)
    _add_gram(found, f"{name}.in_proj_weight", x)
    projected = nn.functional.linear(x, module.in_proj_weight, module.in_proj_bias)
    q, k, v = (part.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=-1))
    mixed = nn.functional.scaled_dot_product_attention(q, k, v)
    _add_gram(found, f"{name}.out_proj.weight", mixed.transpose(1, 2).flatten(2))


_WATCHED = {nn.MultiheadAttention: _see_attention, nn.Linear: _see_linear, nn.LayerNorm: _see_norm, nn.Conv2d: _see_convolution}
