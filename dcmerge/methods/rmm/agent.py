"""The policy: stable-baselines3's PPO on the game of choosing blocks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dcmerge.methods.rmm.game import BlockGame, Chain, gymnasium_environment

if TYPE_CHECKING:
    from stable_baselines3 import PPO

#: Actor and critic of the authors' code.
_HIDDEN = [64, 64]
#: An update comes after as many actions as this many straight episodes take.
_EPISODES_AN_UPDATE = 4


@dataclass(frozen=True)
class Training:
    """How the policy learns: episodes, passes over the buffer at each update, step size."""

    episodes: int
    epochs: int
    learning_rate: float
    seed: int


def sampled_chains(
    game: BlockGame, training: Training, samples: int, tell: Callable[[float], None] = lambda share: None
) -> list[Chain]:
    """Train on ``game``, then let the policy play ``samples`` times without rewards: the chains of those that reach the end.

    ``tell`` hears the share of the episodes that is done, before every action. The same seed gives the same chains.
    """
    with _randomness_of_its_own():
        model = _trained(game, training, tell)
        return [chain for _ in range(samples) if (chain := _played(model, game)) is not None]


def _trained(game: BlockGame, training: Training, tell: Callable[[float], None]) -> PPO:
    """PPO with separate 64-64 tanh networks, Monte-Carlo returns (λ = 1) and one batch of the whole buffer."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    class UntilDone(BaseCallback):
        def _on_step(self) -> bool:
            tell(min(1.0, game.finished / training.episodes))
            return game.finished < training.episodes

    gamma, actions = 0.99, _EPISODES_AN_UPDATE * game.layers
    plain = DummyVecEnv([lambda: gymnasium_environment(game)])
    model = PPO(
        "MlpPolicy",
        VecNormalize(plain, norm_obs=False, gamma=gamma),
        learning_rate=training.learning_rate,
        n_steps=actions,
        batch_size=actions,
        n_epochs=training.epochs,
        gamma=gamma,
        gae_lambda=1.0,
        clip_range=0.2,
        ent_coef=1e-4,
        vf_coef=0.5,
        max_grad_norm=1e9,
        seed=training.seed,
        device="cpu",
        policy_kwargs={"net_arch": {"pi": _HIDDEN, "vf": _HIDDEN}, "activation_fn": torch.nn.Tanh},
    )
    return model.learn(training.episodes * game.longest, callback=UntilDone())


def _played(model: PPO, game: BlockGame) -> Chain | None:
    """One episode of the stochastic policy; None where it failed."""
    game = BlockGame(game.layers, game.candidates, lambda chain: 0.0)
    ended = False
    while not ended:
        action, _ = model.predict(game.state.flatten())
        _, ended = game.step(int(action))
    return tuple(game.chain) if game.complete else None


@contextmanager
def _randomness_of_its_own() -> Iterator[None]:
    """stable-baselines3 seeds the random numbers of the whole process: they go on afterwards as if it had not."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
