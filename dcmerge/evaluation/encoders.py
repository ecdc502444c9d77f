"""Image encoders from open_clip, run with any set of weights."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call

from dcmerge.errors import Cancelled, InputError, listed
from dcmerge.runtime.threads import compute_device

#: Pixel normalisation of OpenAI's CLIP.
_OPENAI_MEAN, _OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Preprocess:
    """A picture of any size and mode to uint8 (3, H, W), as open_clip does it before it normalises. ``size`` is (H, W)."""

    size: tuple[int, int]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    @property
    def key(self) -> str:
        """Says everything that decides the pixels."""
        return f"{self.size[0]} x {self.size[1]}, {self.resize_mode}, {self.interpolation}"

    @cached_property
    def _steps(self) -> Callable[[Image.Image], Image.Image]:
        import open_clip
        from torchvision.transforms import Compose

        whole = open_clip.image_transform(
            self.size, is_train=False, interpolation=self.interpolation, resize_mode=self.resize_mode
        )
        assert isinstance(whole, Compose)  # as always where nothing is augmented
        return Compose(whole.transforms[:-2])  # without the last two: floats between 0 and 1, and normalising

    def __call__(self, image: Image.Image) -> Tensor:
        from torchvision.transforms.functional import pil_to_tensor

        return pil_to_tensor(self._steps(image))


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """open_clip's image tower as a function of its weights: the module itself is never changed.

    Weights are named as in open_clip's CLIP (``visual.…``). ``config`` is an open_clip model configuration, with the pixel
    normalisation and the way to resize under "preprocess" (OpenAI's where there is none). The tower is built when it is
    first needed.
    """

    config: Mapping[str, Any]
    batch_size: int = 250
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def visual(self) -> nn.Module:
        """The tower, its own weights random: ``encode`` brings them."""
        import open_clip  # here, not above: it takes seconds, which only those who evaluate should pay

        own = {key: self.config[key] for key in ("embed_dim", "vision_cfg", "quick_gelu") if key in self.config}
        # The image tower is wanted alone, and open_clip builds a text tower beside it.
        smallest = open_clip.CLIPTextCfg(context_length=1, vocab_size=1, width=1, heads=1, layers=1)
        return open_clip.CLIP(**own, text_cfg=smallest).visual.eval().requires_grad_(False)

    @property
    def layers(self) -> int:
        """How many transformer blocks the tower has; raises InputError where it has none to count (a convolutional one)."""
        layers = self.config["vision_cfg"].get("layers")
        if not isinstance(layers, int):
            raise InputError(f"expected an image encoder of transformer blocks, got layers: {layers!r}")
        return layers

    def with_layers(self, layers: int) -> ImageEncoder:
        """The same tower with another number of transformer blocks; 0 leaves embedding, norms and projection."""
        config = {**self.config, "vision_cfg": {**self.config["vision_cfg"], "layers": layers}}
        return self if layers == self.layers else ImageEncoder(config, self.batch_size)

    @property
    def preprocess(self) -> Preprocess:
        """How pictures of any size become what ``encode`` takes."""
        size, own = self.config["vision_cfg"]["image_size"], self.config.get("preprocess", {})
        pair = (size, size) if isinstance(size, int) else tuple(size)
        return Preprocess(pair, own.get("interpolation") or "bicubic", own.get("resize_mode") or "shortest")

    def pixels(self, images: Tensor) -> Tensor:
        """What the tower sees of uint8 images (N, 3, H, W): float32, normalised."""
        preprocess = self.config.get("preprocess", {})
        usual = (("mean", _OPENAI_MEAN), ("std", _OPENAI_STD))
        mean, std = (torch.tensor(preprocess.get(name) or value, device=images.device) for name, value in usual)
        return (images.float() / 255 - mean[:, None, None]) / std[:, None, None]

    def turn(self) -> AbstractContextManager:
        """While the module runs, it holds one call's weights: threads that run it take turns."""
        return self._turn

    @cached_property
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
            told = [*([f"missing {listed(missing)}"] if missing else []), *([listed(other, "; ")] if other else [])]
            raise InputError(f"expected the weights of this image encoder, got other ones: {'; '.join(told)}")

    def check_used(self, names: Iterable[str]) -> None:
        """Raises InputError that lists weights of an image tower which this one has no place for: without them it is another."""
        unused = [name for name in names if name.startswith("visual.") and name not in self.shapes]
        if unused:
            raise InputError(
                f"expected weights of this image encoder alone, got {len(unused)} that it does not use (another depth or kind?): "
                f"{listed(unused)}"
            )

    def forward(
        self,
        weights: Mapping[str, Tensor],
        images: Tensor,
        edits: Mapping[str, Edit] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Embeddings (N, d) of one batch of uint8 images in ``dtype``, their length not made one yet; runs where the weights are.

        Differentiable in the weights and in ``edits``, which change the outputs of submodules by their names in ``visual``.
        """
        own = {name.removeprefix("visual."): weights[name].to(dtype) for name in self.shapes}
        # Running statistics of batch norms are used, not learned.
        own |= {name: own[name].detach() for name, _ in self.visual.named_buffers() if name in own}
        with self.turn(), self._edited(edits or {}):
            return functional_call(self.visual, own, (self.pixels(images.to(own[next(iter(own))].device)).to(dtype),))

    def placed(
        self, weights: Mapping[str, Tensor], edits: Mapping[str, Edit] | None = None, dtype: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """The weights as they shall run: on the graphics card where there is one, but for edits, whose own weights are not."""
        device = torch.device("cpu") if edits else compute_device()
        return {name: weights[name].to(device, dtype) for name in self.shapes}

    @contextmanager
    def _edited(self, edits: Mapping[str, Edit]) -> Iterator[None]:
        modules = dict(self.visual.named_modules()) if edits else {}
        handles = [
            modules[name].register_forward_hook(lambda module, given, output, edit=edit: edit(output))
            for name, edit in edits.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.inference_mode()
    def encode(
        self,
        weights: Mapping[str, Tensor],
        images: Tensor,
        *,
        edits: Mapping[str, Edit] | None = None,
        repair: Edit | None = None,
        dtype: torch.dtype = torch.float32,
        progress: Callable[[float], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """Features of unit length (N, d) in float32 of uint8 images (N, 3, H, W), computed with these weights in ``dtype``.

        ``edits`` change the outputs of submodules on the way, ``repair`` the embeddings before their length is made one; edits
        work in float32.
        """
        self.check(weights)
        dtype = torch.float32 if edits else dtype
        weights = self.placed(weights, edits, dtype)
        batches = math.ceil(len(images) / self.batch_size)
        features = []
        for done, batch in enumerate(images.split(self.batch_size)):
            if cancelled and cancelled():
                raise Cancelled
            if progress:
                progress(done / batches)
            found = self.forward(weights, batch, edits, dtype).float().cpu()
            features.append(repair(found) if repair else found)
        return nn.functional.normalize(torch.cat(features), dim=-1)

    @torch.inference_mode()
    def block_features(
        self,
        weights: Mapping[str, Tensor],
        images: Tensor,
        *,
        edits: Mapping[str, Edit] | None = None,
        repair: Edit | None = None,
    ) -> list[Tensor]:
        """The residual stream after every block, (N, tokens, width) each, and last the features that ``encode`` returns."""
        self.check(weights)
        weights = self.placed(weights, edits)
        kept: list[list[Tensor]] = [[] for _ in range(self.layers + 1)]
        heard = dict(edits or {})
        for block, own in enumerate(kept[:-1]):
            name = f"transformer.resblocks.{block}"
            heard[name] = _keeping(own, heard.get(name))
        for batch in images.split(self.batch_size):
            found = self.forward(weights, batch, heard).cpu()
            kept[-1].append(repair(found) if repair else found)
        *streams, features = (torch.cat(parts) for parts in kept)
        return [*streams, nn.functional.normalize(features, dim=-1)]


def _keeping(kept: list[Tensor], edit: Edit | None) -> Edit:
    """An edit that adds what it lets pass to a list."""

    def keep(output: Tensor) -> Tensor:
        found = edit(output) if edit else output
        kept.append(found.cpu())
        return found

    return keep
