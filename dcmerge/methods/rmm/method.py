"""Reinforced Model Merging: a policy learns, by labelled accuracy, which block of which model comes next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.evaluation import Assembly
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.registry import merging_method
from dcmerge.methods.rmm.agent import Training, sampled_chains
from dcmerge.methods.rmm.game import AveragedReward, BlockGame, Chain
from dcmerge.methods.rmm.network import Blocks, mean_accuracy, merged_candidates
from dcmerge.vectors.layers import Layer

#: Share of the progress that training takes; the rest is the choice among the policy's networks.
_TRAINING = 0.7
#: What is tried as α of a merged candidate.
WEIGHTS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The network, the base's weights of its encoder, and what the first merged model has outside the encoder."""

    assembly: Assembly
    base: Mapping[str, Tensor]
    outside: Mapping[str, Tensor]


def _chosen(
    layers: Sequence[Layer],
    *,
    calibration: Calibration,
    candidates: str,
    weight: float | None,
    episodes: int,
    data_scale: float,
    dar_scale: float,
    epochs: int,
    learning_rate: float,
    samples: int,
    seed: int,
) -> Chosen:
    """Train the policy, let it play, and keep the best of its networks on the whole validation split."""
    bench = calibration.bench
    depth = bench.encoder.layers  # first: it raises for encoders without blocks
    merged = merged_candidates(layers, candidates, seed)
    first = next(iter(merged))
    models = {task: bench.expert_weights(task) for task in layers[0].tasks}
    weights = {name: _chosen_weight(calibration, own) if weight is None else weight for name, own in merged.items()}
    models |= {name: bench.merged_weights(own, weights[name]) for name, own in merged.items()}
    blocks = Blocks(bench.encoder, models, first)
    raw = _raw_reward(calibration, blocks, data_scale, seed)
    game = BlockGame(depth, len(blocks.names), AveragedReward(raw, episodes, data_scale, dar_scale))

    def tell(share: float) -> None:
        calibration.tell(_TRAINING * share, f"training the policy, episode {game.finished + 1}")

    chains = sampled_chains(game, Training(episodes, epochs, learning_rate, seed), samples, tell)
    best = _best(calibration, blocks, [*map(blocks.whole, blocks.names), *chains])
    outside = {name: weights[first] * delta for name, delta in merged[first].items() if name not in bench.encoder.shapes}
    return Chosen(blocks.assembled(best), bench.base_weights(), outside)


def _chosen_weight(calibration: Calibration, merged: Mapping[str, Tensor]) -> float:
    """The α of a merged candidate with the best mean accuracy on the labelled validation images."""
    bench = calibration.bench
    parts = {task: calibration.labelled(task) for task in bench.tasks}
    found = {
        weight: mean_accuracy(
            bench, Assembly(bench.encoder, bench.merged_weights(merged, weight), (), bench.encoder.layers), parts
        )
        for weight in WEIGHTS
    }
    return max(found, key=found.__getitem__)


def _raw_reward(calibration: Calibration, blocks: Blocks, data_scale: float, seed: int) -> Callable[[Chain], float]:
    """100 · mean accuracy on the next share of every task's images; the iterators go on across episodes."""
    sizes = {task: len(calibration.labelled(task)) for task in calibration.bench.tasks}
    streams = {
        task: calibration.labelled_batches(task, max(1, int(data_scale * size)), seed + place)
        for place, (task, size) in enumerate(sizes.items())
    }

    def reward(chain: Chain) -> float:
        parts = {task: next(stream) for task, stream in streams.items()}
        found = 100 * mean_accuracy(calibration.bench, blocks.assembled(chain), parts)
        calibration.curve.append(100 - found)
        return found

    return reward


def _best(calibration: Calibration, blocks: Blocks, chains: Sequence[Chain]) -> Chain:
    """The chain with the best mean accuracy on the whole validation split, the earlier of equals."""
    parts = {task: calibration.labelled(task) for task in calibration.bench.tasks}
    found: dict[Chain, float] = {}
    for done, chain in enumerate(chains):
        calibration.tell(_TRAINING + (1 - _TRAINING) * done / len(chains), "the policy's networks on validation")
        if chain not in found:
            found[chain] = mean_accuracy(calibration.bench, blocks.assembled(chain), parts)
    return max(found, key=found.__getitem__)


_COUNT = {"low": 1, "high": 1000000, "step": 1, "integer": True}


@merging_method(
    "rmm",
    title="Reinforced Model Merging",
    idea="Put the network together from whole blocks of experts and merged models. A small policy learns by reinforcement which "
    "block comes next, whether a layer is left out or taken again, rewarded by accuracy on labelled validation images.",
    formula=r"\max_\pi\ \mathbb E_{a\sim\pi}\Big[\tfrac{100}{K}\sum_k\mathrm{acc}_k\big(b^{a_n}_{l_n}\circ\dots\circ "
    r"b^{a_1}_{l_1}\big)\Big]",
    source="Han et al. 2025, arXiv 2503.21272",
    needs=("weights", "images", "labels", "training"),
    returns="one model, perhaps of another depth",
    everywhere=True,
    prepare=_chosen,
    assemble=lambda layers, prepared: prepared.assembly,
    fixed_scale="whole blocks are chosen",
    differs="60 episodes, the paper's 700; the policy is trained by another library's PPO. The best network by validation is "
    "returned, the authors report the mean of ten. TIES and DARE prune here; in the published runs they did not.",
    quick={"episodes": 12, "samples": 3},
    extra="rl",
    order_matters=True,
)
def rmm(
    layer: Layer,
    *,
    prepared: Chosen,
    candidates: Annotated[
        str,
        Choice(
            "Merged candidates",
            "Which merged models lend blocks, besides the experts. ties: TIES. dare: DARE. dare_ties: DARE-TIES, TIES and DARE. "
            "The first one gives everything that is not a block.",
            ("ties", "dare", "dare_ties"),
        ),
    ] = "ties",
    weight: Annotated[
        float | None,
        Number(
            "Weight",
            "α of the merged candidates. They add the experts, so that many of them need less than the authors' 1.",
            0,
            10,
            0.05,
            auto=f"the best on validation of {WEIGHTS[0]:g} to {WEIGHTS[-1]:g}",
            soft_high=2,
        ),
    ] = None,
    episodes: Annotated[
        int, Number("Episodes", "Networks tried in training; the paper takes 700.", soft_high=700, **_COUNT)
    ] = 60,
    data_scale: Annotated[
        float, Number("Data scale ρ", "Share of the labelled validation images that an episode looks at.", 0.001, 1, 0.01)
    ] = 0.1,
    dar_scale: Annotated[
        float, Number("Averaging", "The largest weight of earlier rewards in the average reward.", 0, 1, 0.05)
    ] = 0.8,
    epochs: Annotated[int, Number("Epochs", "Passes over the actions of an update.", soft_high=100, **_COUNT)] = 40,
    learning_rate: Annotated[
        float, Number("Learning rate", "Step size of the policy's Adam.", 0, 1, 1e-4, soft_high=1e-2)
    ] = 3e-4,
    samples: Annotated[
        int,
        Number(
            "Samples", "Networks that the trained policy proposes; the best on validation is returned.", soft_high=50, **_COUNT
        ),
    ] = 10,
    seed: Annotated[
        int,
        Number("Seed", "Decides the policy, the images of each episode and DARE.", 0, 2**31 - 1, 1, integer=True, soft_high=100),
    ] = 0,
) -> Tensor:
    """What the network has here minus the base; the network itself, which may be deeper, is the assembly.

    Rewards come from the validation split with its labels, since a model set has no training images; test images are never
    looked at. The authors' code has its own PPO: here it is stable-baselines3's, which updates after 4·L actions in place of 4
    episodes, has one learning rate for actor and critic, and divides rewards by their running deviation where theirs normalises
    returns. They report the mean of 10 sampled networks; a merge is one model, so the best on validation is returned, of the
    sampled networks, the experts and the merged candidates. Their TIES is the elected sum, as here, and their TIES and DARE prune
    a copy that is never used, so that the published runs did not prune; here they do. An episode ends, as failed, after 4·L
    actions; theirs has no bound.
    """
    value = prepared.assembly.weights.get(layer.name)
    if value is not None:
        return (value - prepared.base[layer.name]).to(layer.dtype)
    return prepared.outside.get(layer.name, torch.zeros(layer.shape)).to(layer.dtype)
