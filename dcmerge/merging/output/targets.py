"""Where and how a merge is written, and what was written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from dcmerge.checkpoints import ADAPTER_CONFIG, INDEX_SUFFIX, SAFETENSORS_SUFFIX, check_folder
from dcmerge.checkpoints.modules import SETTINGS, is_module
from dcmerge.errors import InputError
from dcmerge.evaluation import Evaluation
from dcmerge.merging.output.rounding import Rounding
from dcmerge.vectors.task_vectors import TaskVectors

CARD, REPORT = "README.md", "report.html"
#: What a whole model may be written in, instead of the base's own dtypes.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ADAPTER_WEIGHTS = "adapter_model.safetensors"
#: Small files of settings and vocabulary that make a folder of weights loadable: data, no code and no pickles.
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "open_clip_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    *SETTINGS,
)


@dataclass(frozen=True)
class Target:
    """``content`` is "model" (base + α · merged), "delta" (α · merged, dense) or "adapter" (a PEFT folder of it, or a LoRA file).

    A path that does not end in ``.safetensors`` is a folder, with a card in it; ``card`` writes one beside a single file too.
    ``rank`` bounds an adapter's, ``evaluation`` is what the card says of accuracies, and ``replace`` allows an earlier merge's
    folder to be replaced. ``dtype`` is another one than the base's own dtypes, for a model alone. ``report``: what was measured
    as HTML, written beside the weights and named in the card.
    """

    path: Path
    content: str = "model"
    rank: int | None = None
    card: bool = False
    evaluation: Evaluation | None = None
    replace: bool = False
    dtype: str | None = None
    report: str = field(default="", repr=False)

    @property
    def card_path(self) -> Path | None:
        """Where the card stands; None where there is none."""
        return self.path / CARD if self.is_folder else self.path.with_suffix(".md") if self.card else None

    @property
    def report_path(self) -> Path | None:
        """The same of the report."""
        if not self.report:
            return None
        return self.path / REPORT if self.is_folder else self.path.with_suffix(".html")

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """What floating-point tensors are written in; None for their own."""
        return None if self.dtype is None else DTYPES[self.dtype]

    @property
    def is_folder(self) -> bool:
        return self.path.suffix != SAFETENSORS_SUFFIX

    def fitting(self, vectors: TaskVectors) -> Target:
        """The same for these models: adapters without a base give their delta. Raises InputError where that has no such form."""
        if vectors.base is not None or self.content != "model":
            return self
        found = replace(self, content="delta")
        found.check()
        return found

    def check(self) -> None:
        """Raises InputError, before any work, for a folder that could not be written and a content that no folder has."""
        if self.content == "delta" and self.is_folder:
            raise InputError(f"expected one file {SAFETENSORS_SUFFIX} for the delta alone, got the folder {self.path}")
        if self.dtype is not None and (self.dtype not in DTYPES or self.content != "model"):
            raise InputError(
                f"dtype: expected one of {', '.join(DTYPES)}, for a whole model, got {self.dtype!r} for the {self.content}"
            )
        if self.rank is not None and self.rank < 1:
            raise InputError(f"rank: expected an adapter's rank of at least 1, got {self.rank}")
        if self.is_folder:
            check_folder(self.path, ours=ours if self.replace else None)


def ours(name: str) -> bool:
    """Whether a file of that name, below the folder, may be in one that a merge wrote."""
    folder, slash, name = name.rpartition("/")
    if slash and not is_module(folder):
        return False
    known = (CARD, REPORT, ADAPTER_CONFIG, *COMPANIONS)
    return name in known or name.endswith((SAFETENSORS_SUFFIX, SAFETENSORS_SUFFIX + INDEX_SUFFIX))


@dataclass(frozen=True)
class Written:
    """What is on disk: the file or folder, its files, and what a user should know of them.

    Of an adapter ``ranks`` are the smallest and the largest, and ``discarded`` is the share of the merged delta's energy
    (squared Frobenius norm, over all matrices) that its rank leaves out, with the matrix that loses most in ``worst``. Of a model
    ``rounding`` says what the dtypes of fewer than 32 bits lose; None where there are none.
    """

    path: Path
    content: str
    files: tuple[str, ...]
    tensors: int
    nbytes: int
    notes: tuple[str, ...] = ()
    ranks: tuple[int, int] | None = None
    discarded: float | None = None
    worst: tuple[str, float] | None = field(default=None)
    rounding: Rounding | None = None
