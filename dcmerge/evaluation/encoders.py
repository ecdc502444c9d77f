"""Image encoders from open_clip, run with any set of weights."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dcmerge.errors import Cancelled, InputError

#: Pixel normalisation of OpenAI's CLIP.
_OPENAI_MEAN, _OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """open_clip's image tower as a function of its weights: the module itself is never changed.

    Weights are named as in open_clip's CLIP (``visual.…``). ``config`` is an open_clip model configuration, with the pixel
    normalisation under "preprocess" (OpenAI's where there is none). The tower is built when it is first needed.
    """

    config: Mapping[str, Any]
    batch_size: int = 250
    # While the module runs, it holds that call's weights: batches of several threads take turns.
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def visual(self) -> nn.Module:
        """The tower, its own weights random: ``encode`` brings them."""
        import open_clip  # here, not above: it takes seconds, which only those who evaluate should pay

        model = open_clip.CLIP(**{key: self.config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})
        return model.visual.eval().requires_grad_(False)

    @property
    def _normalisation(self) -> tuple[Tensor, Tensor]:
        preprocess = self.config.get("preprocess", {})
        mean, std = preprocess.get("mean", _OPENAI_MEAN), preprocess.get("std", _OPENAI_STD)
        return torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights that ``encode`` needs."""
        return {f"visual.{name}": tuple(value.shape) for name, value in self.visual.state_dict().items()}

    def check(self, weights: Mapping[str, Tensor]) -> None:
        """Raises InputError that lists every missing weight and every other shape."""
        missing = [name for name in self.shapes if name not in weights]
        other = [
            f"{name} (expected {list(shape)}, got {list(weights[name].shape)})"
            for name, shape in self.shapes.items()
            if name in weights and tuple(weights[name].shape) != shape
        ]
        if missing or other:
            told = [*([f"missing {', '.join(missing)}"] if missing else []), *other]
            raise InputError(f"expected the weights of this image encoder, got other ones: {'; '.join(told)}")

    @torch.inference_mode()
    def encode(
        self,
        weights: Mapping[str, Tensor],
        images: Tensor,
        *,
        progress: Callable[[float], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """Features of unit length (N, d) of uint8 images (N, 3, H, W), with these weights in float32."""
        self.check(weights)
        own = {name.removeprefix("visual."): weights[name].float() for name in self.shapes}
        mean, std = self._normalisation
        batches = math.ceil(len(images) / self.batch_size)
        features = []
        for done, batch in enumerate(images.split(self.batch_size)):
            if cancelled and cancelled():
                raise Cancelled
            if progress:
                progress(done / batches)
            with self._turn:
                features.append(functional_call(self.visual, own, ((batch.float() / 255 - mean) / std,)))
        return nn.functional.normalize(torch.cat(features), dim=-1)

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return len(self.visual.transformer.resblocks)

    @torch.inference_mode()
    def block_features(self, weights: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
        """The residual stream after every block, (N, tokens, width) each, and last the features that ``encode`` returns."""
        self.check(weights)
        own = {name.removeprefix("visual."): weights[name].float() for name in self.shapes}
        mean, std = self._normalisation
        kept: list[list[Tensor]] = [[] for _ in range(self.depth + 1)]
        for batch in images.split(self.batch_size):
            with self._turn, _listening(self.visual.transformer.resblocks, kept):
                kept[-1].append(functional_call(self.visual, own, ((batch.float() / 255 - mean) / std,)))
        *streams, features = (torch.cat(parts) for parts in kept)
        return [*streams, nn.functional.normalize(features, dim=-1)]


@contextmanager
def _listening(blocks: nn.ModuleList, kept: list[list[Tensor]]) -> Iterator[None]:
    """Every block's output is added to its list; the hooks are gone afterwards, for other threads run the same module."""
    hooks = [
        block.register_forward_hook(lambda module, inputs, output, own=own: own.append(output))
        for block, own in zip(blocks, kept[:-1], strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
