"""Image encoders from open_clip, run with any set of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.func import functional_call

from dcmerge.errors import Cancelled, InputError


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """open_clip's image tower as a function of its weights: the module itself is never changed.

    Weights are named as in open_clip's CLIP (``visual.…``). ``mean`` and ``std`` (3,) normalise pixels in [0, 1].
    """

    visual: nn.Module
    mean: Tensor
    std: Tensor
    batch_size: int = 250

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImageEncoder:
        """Build the tower that an open_clip model configuration describes (weights random until ``encode`` gets some)."""
        model = open_clip.CLIP(**{key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})
        preprocess = config.get("preprocess", {})
        mean = torch.tensor(preprocess.get("mean", open_clip.OPENAI_DATASET_MEAN))
        std = torch.tensor(preprocess.get("std", open_clip.OPENAI_DATASET_STD))
        return cls(model.visual.eval().requires_grad_(False), mean, std)

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
        batches = math.ceil(len(images) / self.batch_size)
        features = []
        for done, batch in enumerate(images.split(self.batch_size)):
            if cancelled and cancelled():
                raise Cancelled
            if progress:
                progress(done / batches)
            pixels = (batch.float() / 255 - self.mean[:, None, None]) / self.std[:, None, None]
            features.append(functional_call(self.visual, own, (pixels,)))
        return nn.functional.normalize(torch.cat(features), dim=-1)

