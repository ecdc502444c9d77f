"""Passes that begin at a block: the same bits as whole ones, each block computed once, whole ones where it cannot hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dcmerge.errors import Cancelled
from dcmerge.evaluation import Bench
from dcmerge.evaluation.prefixes import KeptTokens, blocks_of, changed, first_block, share_of_pass
from dcmerge.studies.small_sets import random_tensors, tiny_bench

BLOCK = "visual.transformer.resblocks.{}.mlp.c_fc.weight"
TOWERS: dict[str, dict[str, Any]] = {
    "plain": {"layers": 4},
    "averaged tokens": {"layers": 3, "pool_type": "avg"},
    "attention at the end": {"layers": 3, "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 2},
    "scaled blocks": {"layers": 3, "ls_init_value": 0.1, "no_ln_pre": True, "final_ln_after_pool": True, "pool_type": "avg"},
}
RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 32}


def other(bench: Bench, name: str) -> dict[str, Tensor]:
    """The base with one weight changed."""
    weights = bench.base_weights()
    return {**weights, name: weights[name] + random_tensors(7, {name: tuple(weights[name].shape)}, 0.5)[name]}


@contextmanager
def counted(bench: Bench) -> Iterator[Counter[int]]:
    """How many batches each block has seen."""
    found: Counter[int] = Counter()
    blocks = blocks_of(bench.encoder)
    assert blocks is not None
    handles = [block.register_forward_hook(lambda *_, place=place: found.update([place])) for place, block in enumerate(blocks)]
    yield found
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("tower", TOWERS)
def test_every_start_gives_the_bits_of_a_whole_pass(tmp_path: Path, tower: str) -> None:
    bench = tiny_bench(tmp_path, tasks=1, tower=TOWERS[tower])
    images, layers = bench.split("task0", "val", None).images, bench.encoder.layers
    bench.encoder.__dict__["batch_size"] = 7  # several batches, the last one smaller
    kept = KeptTokens(bench.encoder, bench.base_weights(), images)
    for name in [*(BLOCK.format(block) for block in range(layers)), "visual.ln_post.weight"]:
        weights = other(bench, name)
        start = first_block(bench.encoder, changed(weights, bench.base_weights()))
        assert start == (layers if "ln_post" in name else int(name.split(".")[3]))
        wanted = bench.encoder.encode(weights, images)
        assert torch.equal(kept.features(weights, start), wanted), name
        assert not torch.equal(wanted, bench.encoder.encode(bench.base_weights(), images))
    assert kept.block == layers and not kept.refused and len(kept.tokens) == -(-len(images) // 7)


def test_a_block_is_computed_once_for_all_that_comes_after(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path, tasks=1, tower={"layers": 4})
    kept = KeptTokens(bench.encoder, bench.base_weights(), bench.split("task0", "val", None).images)
    kept.features(other(bench, BLOCK.format(1)), 1)
    with counted(bench) as seen:
        for block in (1, 2, 2, 3):
            kept.features(other(bench, BLOCK.format(block)), block)
    assert seen == {1: 1 + 1, 2: 3 + 1, 3: 4}  # the passes that begin there or before, and once on the way to the next
    with counted(bench) as seen:
        early = kept.features(other(bench, BLOCK.format(1)), 1)  # it has gone on: a whole pass
    assert set(seen) == {0, 1, 2, 3}
    assert torch.equal(early, bench.encoder.encode(other(bench, BLOCK.format(1)), kept.images))


def test_more_tokens_than_may_be_kept_are_not_kept(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path, tasks=1)
    images, weights = bench.split("task0", "val", None).images, other(bench, BLOCK.format(1))
    tokens = (bench.encoder.config["vision_cfg"]["image_size"] // bench.encoder.config["vision_cfg"]["patch_size"]) ** 2 + 1
    size = len(images) * tokens * bench.encoder.config["vision_cfg"]["width"] * 4
    for most, refused in ((size, False), (size - 1, True)):
        kept = KeptTokens(bench.encoder, bench.base_weights(), images, most)
        assert torch.equal(kept.features(weights, 1), bench.encoder.encode(weights, images))
        assert kept.refused is refused and bool(kept.tokens) is not refused


def test_a_tower_that_does_more_between_its_blocks_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = tiny_bench(tmp_path, tasks=1, tower={"layers": 3, "pool_type": "avg"})
    transformer, forward = bench.encoder.visual.transformer, type(bench.encoder.visual.transformer).forward
    monkeypatch.setattr(type(transformer), "forward", lambda self, x, attn_mask=None: x + forward(self, x, attn_mask))
    images, weights = bench.split("task0", "val", None).images, other(bench, BLOCK.format(1))
    kept = KeptTokens(bench.encoder, bench.base_weights(), images)
    assert torch.equal(kept.features(weights, 1), bench.encoder.encode(weights, images)) and kept.refused


def test_a_tower_without_such_blocks_makes_whole_passes(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path, tasks=1, tower=RESNET)
    name = "visual.layer2.0.conv1.weight"
    weights, images = other(bench, name), bench.split("task0", "val", None).images
    assert blocks_of(bench.encoder) is None and first_block(bench.encoder, [name]) == 0
    assert share_of_pass(bench.encoder, [name]) == 1
    kept = KeptTokens(bench.encoder, bench.base_weights(), images)
    assert torch.equal(kept.features(weights, 0), bench.encoder.encode(weights, images))


def test_where_a_pass_begins(tmp_path: Path) -> None:
    encoder = tiny_bench(tmp_path, tasks=1, tower={"layers": 4}).encoder
    for names, start in (
        (["visual.conv1.weight"], 0),
        (["visual.positional_embedding", BLOCK.format(3)], 0),
        ([BLOCK.format(3), BLOCK.format(2)], 2),
        (["visual.proj", "visual.ln_post.bias"], 4),
        ([], 4),
    ):
        assert first_block(encoder, names) == start and share_of_pass(encoder, names) == 1 - start / 4


def test_it_can_be_cancelled(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path, tasks=1)
    kept = KeptTokens(bench.encoder, bench.base_weights(), bench.split("task0", "val", None).images)
    with pytest.raises(Cancelled):
        kept.features(bench.base_weights(), 1, cancelled=lambda: True)
