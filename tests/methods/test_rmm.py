"""Reinforced Model Merging: the game of choosing blocks, the networks that it makes, the agent, and all of it on a tiny bench."""

from __future__ import annotations

import importlib.util
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcmerge import Cancelled, InputError, merge, merge_to_file
from dcmerge.evaluation import Assembly, Bench, ImageEncoder
from dcmerge.merging.merge import Merged, check_depth
from dcmerge.methods import method
from dcmerge.methods.registry import EXTRAS
from dcmerge.methods.rmm.agent import Training, sampled_chains
from dcmerge.methods.rmm.game import FAILED, LONGEST, AveragedReward, BlockGame, Chain, gymnasium_environment
from dcmerge.methods.rmm.method import WEIGHTS
from dcmerge.methods.rmm.network import MERGED, Blocks, mean_accuracy, merged_candidates
from dcmerge.studies.measuring import measure
from tests.builders import relative_error

QUICK = {"episodes": 4, "samples": 2, "epochs": 2, "data_scale": 0.25}
SKIP, BACK = 2, 3  # with two candidates


def played(game: BlockGame, *actions: int) -> tuple[list[float], bool]:
    """Rewards of a new episode, and whether it ended with the last action."""
    game.reset()
    steps = [game.step(action) for action in actions]
    assert not any(ended for _, ended in steps[:-1])
    return [reward for reward, _ in steps], steps[-1][1]


def game_of(layers: int = 3, candidates: int = 2) -> tuple[BlockGame, list[Chain]]:
    """A game that pays 7, and the chains that it was asked about."""
    asked: list[Chain] = []
    return BlockGame(layers, candidates, lambda chain: asked.append(chain) or 7.0), asked


def test_blocks_are_appended_skipped_and_taken_again() -> None:
    game, asked = game_of()
    assert played(game, 0, SKIP, BACK, 1, 1) == ([0, 0, 0, 0, 7], True)
    assert asked == [((0, 0), (1, 1), (2, 1))]
    assert played(game, 0, BACK, 0, 1, SKIP) == ([0, 0, 0, 0, 7], True)
    assert asked[1] == ((0, 0), (0, 0), (1, 1)) and game.finished == 2
    assert game.state.tolist() == [[2, 0], [0, 1], [0, 0]]


def test_leaving_at_the_start_fails() -> None:
    game, asked = game_of()
    assert played(game, BACK) == ([FAILED], True) and FAILED == -10
    assert played(game, 0, BACK, BACK) == ([0, 0, FAILED], True)
    assert not asked and game.finished == 2 and not game.complete


def test_skipping_everything_is_a_network_without_blocks() -> None:
    game, asked = game_of()
    assert played(game, SKIP, SKIP, SKIP) == ([0, 0, 7], True) and asked == [()]


def test_an_episode_that_goes_to_and_fro_ends() -> None:
    game, asked = game_of()
    rewards, ended = played(game, *[0, BACK] * (LONGEST * 3 // 2))
    assert ended and rewards[-1] == FAILED and not asked


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_the_state_counts_the_appended_blocks(actions: list[int]) -> None:
    game, _ = game_of()
    for action in actions:
        _, ended = game.step(action)
        assert game.state.sum() == len(game.chain) <= game.longest
        if ended:
            break
    for layer, candidate in set(game.chain):
        assert game.state[layer, candidate] == game.chain.count((layer, candidate))


def test_the_environment_is_gymnasiums() -> None:
    from gymnasium.utils.env_checker import check_env

    game, _ = game_of()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        check_env(gymnasium_environment(game), skip_render_check=True)
    assert not [str(one.message) for one in told if "spec" not in str(one.message)]
    environment = gymnasium_environment(game)
    assert environment.action_space.n == 2 + 2 and environment.observation_space.shape == (3 * 2,)
    observation, _ = environment.reset(seed=0)
    assert not observation.any()
    assert environment.step(1)[0].tolist() == [0, 1, 0, 0, 0, 0]


def test_with_all_data_every_reward_is_the_raw_one() -> None:
    raw = iter([3.0, 50.0, 7.0])
    reward = AveragedReward(lambda chain: next(raw), episodes=3, data_scale=1.0)
    assert [reward(()) for _ in range(3)] == [3, 50, 7]


def test_the_dynamic_average_reward() -> None:
    """ρ = ½: a pass begins with episodes 1 and 3; w = 0.8 · 2/4 = 0.4 and 0.8 · 4/4 = 0.8."""
    raw = iter([10.0, 20.0, 30.0, 40.0])
    reward = AveragedReward(lambda chain: next(raw), episodes=4, data_scale=0.5)
    assert [reward(()) for _ in range(4)] == pytest.approx([10, 0.4 * 10 + 0.6 * 20, 30, 0.8 * 30 + 0.2 * 40])


TABLE = {((0, 1), (1, 0)): 90.0, ((0, 0), (1, 1)): 40.0, ((0, 1), (1, 1)): 30.0, ((0, 0), (1, 0)): 20.0}
TOY = Training(episodes=120, epochs=10, learning_rate=3e-3, seed=0)


def toy() -> BlockGame:
    return BlockGame(2, 2, lambda chain: TABLE.get(chain, 10.0))


def test_the_agent_solves_a_table() -> None:
    """Two layers, two candidates: the trained policy itself prefers the best chain, not only the best of its samples."""
    shares: list[float] = []
    found = sampled_chains(toy(), TOY, 20, shares.append)
    assert found.count(((0, 1), (1, 0))) >= 17, found
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] == 1


def test_a_seed_decides_and_leaves_no_trace() -> None:
    short = Training(episodes=12, epochs=2, learning_rate=3e-4, seed=3)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = sampled_chains(toy(), short, 8)
    after = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert after == (random.random(), np.random.rand(), torch.rand(1).item())
    assert sampled_chains(toy(), short, 8) == first
    assert sampled_chains(toy(), Training(12, 2, 3e-4, seed=4), 8) != first


@pytest.fixture
def blocks(blocks_bench: Bench) -> Blocks:
    models = {task: blocks_bench.expert_weights(task) for task in blocks_bench.vectors.tasks}
    return Blocks(blocks_bench.encoder, models | {"base": blocks_bench.base_weights()}, "base")


@pytest.mark.parametrize("task", ["task0", "task1"])
def test_the_blocks_of_one_expert_are_that_expert(blocks_bench: Bench, blocks: Blocks, task: str) -> None:
    """The experts of this bench share embedding, norms and projection with the base."""
    found, images = blocks.assembled(blocks.whole(task)), blocks_bench.split(task, "val", None).images
    wanted = blocks_bench.encoder.encode(blocks_bench.expert_weights(task), images)
    torch.testing.assert_close(found.encoder.encode(found.weights, images), wanted, rtol=0, atol=1e-6)
    assert found.blocks == tuple(f"block {layer} of {task}" for layer in range(3)) and found.encoder is blocks_bench.encoder


def test_no_block_is_the_identity_between_the_embedding_and_the_final_norm(blocks_bench: Bench, blocks: Blocks) -> None:
    found, images = blocks.assembled(()), blocks_bench.split("task0", "val", None).images[:5]
    assert found.encoder.layers == 0 and not any("resblocks" in name for name in found.encoder.shapes)
    base = blocks_bench.base_weights()
    still = {name: torch.zeros_like(value) if "resblocks" in name else value for name, value in base.items()}
    wanted = blocks_bench.encoder.encode(still, images)  # blocks of zeros add nothing to the residual stream
    torch.testing.assert_close(found.encoder.encode(found.weights, images), wanted, rtol=0, atol=1e-6)


def test_a_deeper_network_runs_its_blocks_in_order(blocks_bench: Bench, blocks: Blocks) -> None:
    chain, name = ((0, 0), (1, 1), (1, 0), (2, 2)), "visual.transformer.resblocks.{}.mlp.c_fc.weight"
    found = blocks.assembled(chain)
    found.encoder.check(found.weights)
    assert found.encoder.layers == 4 and blocks.assembled(chain).encoder is found.encoder and found.depth == 3
    for place, (layer, candidate) in enumerate(chain):
        own = list(blocks.candidates.values())[candidate]
        assert torch.equal(found.weights[name.format(place)], own[name.format(layer)])


def test_the_accuracy_is_the_benchs(blocks_bench: Bench, blocks: Blocks) -> None:
    parts = {task: blocks_bench.split(task, "val", None) for task in blocks_bench.tasks}
    found = mean_accuracy(blocks_bench, blocks.assembled(blocks.whole("task1")), parts)
    weights = blocks_bench.expert_weights("task1")
    assert found == pytest.approx(blocks_bench.evaluate(weights, "one", split="val", normalise=False).mean)


def test_encoders_without_blocks_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected an image encoder of transformer blocks, got layers: \[1, 2\]"):
        _ = ImageEncoder({"vision_cfg": {"layers": [1, 2]}}).layers


def test_merged_candidates(blocks_bench: Bench) -> None:
    from dcmerge.vectors.layers import Layer

    layers = [Layer(blocks_bench.vectors, parameter) for parameter in blocks_bench.vectors.parameters.values()]
    for kind, names in MERGED.items():
        found = merged_candidates(layers, kind, seed=0)
        assert tuple(found) == names and all(own.keys() == blocks_bench.vectors.parameters.keys() for own in found.values())
    name = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    kept = found["DARE-TIES"][name]
    ties = merge(blocks_bench.vectors, "ties", density=0.3, aggregate="sum").deltas[name]
    assert torch.equal(found["TIES"][name], ties) and relative_error(kept, found["DARE"][name]) < 1 and kept.any()


@pytest.fixture(scope="module")
def merged(blocks_bench: Bench) -> Merged:
    return merge(blocks_bench.vectors, "rmm", bench=blocks_bench, **QUICK)


def test_on_a_bench(blocks_bench: Bench, merged: Merged) -> None:
    found = merged.assembly
    found.encoder.check(found.weights)
    assert len(found.blocks) == found.encoder.layers and found.depth == 3 and 1 <= len(merged.curve) <= QUICK["episodes"]
    assert all(0 <= loss <= 100 for loss in merged.curve)
    again = merge(blocks_bench.vectors, "rmm", bench=blocks_bench, **QUICK)
    assert again.assembly.blocks == found.blocks and again.curve == merged.curve
    row = measure(blocks_bench, "rmm", QUICK)
    features = found.encoder.encode(found.weights, blocks_bench.split("task0", "test", None).images)
    hits = (features @ blocks_bench.tasks["task0"].head.T).argmax(dim=1) == blocks_bench.split("task0", "test", None).labels
    assert torch.equal(row.evaluation.tasks["task0"].hits, hits) and row.scale.origin == "fixed: whole blocks are chosen"


def test_only_validation_labels_are_looked_at(blocks_bench: Bench, merged: Merged) -> None:
    tasks = {
        name: type(task)(task.name, task.title, task.classes, task.head, {"val": task.splits["val"]})
        for name, task in blocks_bench.tasks.items()
    }
    bench = Bench(blocks_bench.encoder, tasks, blocks_bench.vectors)
    assert merge(blocks_bench.vectors, "rmm", bench=bench, **QUICK).assembly.blocks == merged.assembly.blocks


def test_a_scale_has_no_meaning(blocks_bench: Bench, merged: Merged, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scale: rmm chooses whole blocks, expected α = 1, got 0.5"):
        merged.model(blocks_bench, 0.5)
    with pytest.raises(InputError, match="scale: rmm chooses whole blocks"):
        merged.save(tmp_path / "out.safetensors", scale=0.5)


def of_chain(bench: Bench, merged: Merged, blocks: Blocks, chain: Chain) -> Merged:
    """What rmm returns where the policy chose this chain."""
    from dcmerge.methods.rmm.method import Chosen, rmm
    from dcmerge.vectors.layers import Layer

    chosen = Chosen(blocks.assembled(chain), bench.base_weights(), {})
    layers = [Layer(bench.vectors, parameter) for parameter in bench.vectors.parameters.values()]
    deltas = {layer.name: rmm(layer, prepared=chosen) for layer in layers}
    return Merged(bench.vectors, "rmm", merged.parameters, deltas, assembly=chosen.assembly)


def test_a_network_of_the_bases_depth_is_saved_as_weights(
    blocks_bench: Bench, merged: Merged, blocks: Blocks, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    mixed = of_chain(blocks_bench, merged, blocks, ((0, 0), (0, 1), (2, 1)))
    mixed.save(tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    for name, value in mixed.assembly.weights.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("chain", [(), ((0, 0),), ((0, 0), (1, 1), (2, 0), (2, 1))])
def test_another_depth_is_not_saved(blocks_bench: Bench, merged: Merged, blocks: Blocks, tmp_path: Path, chain: Chain) -> None:
    mixed = of_chain(blocks_bench, merged, blocks, chain)
    assert blocks_bench.evaluate(mixed.model(blocks_bench, 1.0), "mixed").mean >= 0
    with pytest.raises(InputError, match=f"rmm chose {len(chain)} blocks where the base has 3"):
        mixed.save(tmp_path / "out.safetensors")
    with pytest.raises(InputError, match="blocks where the base has 3"):
        check_depth("rmm", mixed.assembly, 1.0)
    assert not list(tmp_path.iterdir())


def test_saving_while_merging(blocks_bench: Bench, merged: Merged, tmp_path: Path) -> None:
    fits = len(merged.assembly.blocks) == 3
    try:
        merge_to_file(blocks_bench.vectors, "rmm", tmp_path / "out.safetensors", bench=blocks_bench, **QUICK)
    except InputError as error:
        assert not fits and "blocks where the base has 3" in str(error)
    assert (tmp_path / "out.safetensors").exists() == fits


def test_a_policy_that_never_reaches_the_end_leaves_the_best_whole_candidate(
    blocks_bench: Bench, blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experts and merged candidates compete with the policy's networks; the candidate's α is the best on validation."""
    import sys

    monkeypatch.setattr(sys.modules["dcmerge.methods.rmm.method"], "sampled_chains", lambda *rest: [])
    found = merge(blocks_bench.vectors, "rmm", bench=blocks_bench, **QUICK)
    parts = {task: blocks_bench.split(task, "val", None) for task in blocks_bench.tasks}
    ties = merge(blocks_bench.vectors, "ties", density=0.3, aggregate="sum").deltas
    whole = {f"TIES at {alpha:g}": blocks_bench.merged_weights(ties, alpha) for alpha in WEIGHTS}
    whole |= {task: blocks_bench.expert_weights(task) for task in blocks_bench.vectors.tasks}
    encoder = blocks_bench.encoder
    scores = {n: mean_accuracy(blocks_bench, Assembly(encoder, w, (), encoder.layers), parts) for n, w in whole.items()}
    chosen = found.assembly
    assert mean_accuracy(blocks_bench, chosen, parts) == pytest.approx(max(scores.values()))
    assert {name.partition(" of ")[2] for name in chosen.blocks} <= {"TIES", *blocks_bench.vectors.tasks}
    assert len({name.partition(" of ")[2] for name in chosen.blocks}) == 1


def test_it_can_be_cancelled(blocks_bench: Bench) -> None:
    for calls in (1, 5, 12):
        count = iter(range(1000))
        with pytest.raises(Cancelled):
            merge(blocks_bench.vectors, "rmm", bench=blocks_bench, cancelled=lambda: next(count) >= calls, **QUICK)  # noqa: B023


def test_without_the_extra_it_says_what_to_install(blocks_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one = method("rmm")
    assert one.extra in EXTRAS and one.obstacle(blocks_bench.vectors, blocks_bench) == ""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    wanted = "needs gymnasium and stable-baselines3: pip install dcmerge[rl]"
    assert one.obstacle(blocks_bench.vectors, blocks_bench) == wanted
    assert "images" in one.obstacle(blocks_bench.vectors)
    with pytest.raises(InputError, match="rmm needs gymnasium and stable-baselines3"):
        merge(blocks_bench.vectors, "rmm", bench=blocks_bench)


def test_developers_have_the_extra() -> None:
    """A list that pyproject.toml reads may have no ``-r`` line, so the two files repeat each other."""
    root = Path(__file__).resolve().parents[2]
    extra, dev = (
        {line for line in (root / name).read_text().splitlines() if line and not line.startswith("#")}
        for name in ("requirements-rl.txt", "requirements-dev.txt")
    )
    assert extra and extra <= dev
