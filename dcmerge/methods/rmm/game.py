"""Choosing blocks as a game, with its rewards, and as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import gymnasium

#: (layer, candidate) of every block that was appended, in order.
Chain = tuple[tuple[int, int], ...]

#: The reward of an episode that leaves the network at its start.
FAILED = -10.0
#: An episode may take this many actions for each layer of the base. The authors' code has no bound: an untrained policy may
#: then go back and forth for ever, and every step forward makes the network that is evaluated deeper.
LONGEST = 4


@dataclass(eq=False)
class BlockGame:
    """From layer 0 to layer L, appending a block of one of M candidates at each, or not (RMM, section 3).

    Action a < M appends block ``position`` of candidate a and goes on, M goes on without, M + 1 goes back, and what was appended
    stays. The episode ends behind the last layer with ``reward(chain)``, before the first with −10, and with −10 as well after
    LONGEST · L actions. ``state`` (L, M) counts what was appended; the position is hidden. ``finished`` counts episodes.
    """

    layers: int
    candidates: int
    reward: Callable[[Chain], float]
    state: np.ndarray = field(init=False)
    chain: list[tuple[int, int]] = field(init=False)
    position: int = field(init=False)
    actions: int = field(init=False)
    finished: int = 0

    def __post_init__(self) -> None:
        self.reset()

    @property
    def longest(self) -> int:
        return LONGEST * self.layers

    @property
    def complete(self) -> bool:
        """The last layer is passed: there is a network."""
        return self.position == self.layers

    def reset(self) -> None:
        """A new episode."""
        self.state = np.zeros((self.layers, self.candidates), dtype=np.float32)
        self.chain, self.position, self.actions = [], 0, 0

    def step(self, action: int) -> tuple[float, bool]:
        """The reward of one action, and whether the episode has ended."""
        self.actions += 1
        if action < self.candidates:
            self.state[self.position, action] += 1
            self.chain.append((self.position, action))
        self.position += -1 if action == self.candidates + 1 else 1
        ended = self.complete or self.position < 0 or self.actions == self.longest
        if not ended:
            return 0.0, False
        self.finished += 1
        return (float(self.reward(tuple(self.chain))) if self.complete else FAILED), True


def gymnasium_environment(game: BlockGame) -> gymnasium.Env:
    """The game for agents: the flat state (L·M,) float32 as the observation, M + 2 actions."""
    import gymnasium  # here, not above: an optional extra

    class BlockEnvironment(gymnasium.Env):
        """Steps go to the game; nothing in it is random."""

        action_space = gymnasium.spaces.Discrete(game.candidates + 2)
        observation_space = gymnasium.spaces.Box(0, game.longest, (game.layers * game.candidates,), np.float32)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
            super().reset(seed=seed)
            game.reset()
            return game.state.flatten(), {}

        def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
            reward, ended = game.step(int(action))
            return game.state.flatten(), reward, ended, False, {}

    return BlockEnvironment()


@dataclass(eq=False)
class AveragedReward:
    """The dynamic average reward over ``episodes`` that each see a share ρ of the data: r̃_e of raw rewards r_e.

    r̃_e = r_e where a pass over the data begins, (e − 1) mod (1/ρ) = 0, else w r̃_{e−1} + (1 − w) r_e with w = scale · e / E.
    Episodes that fail look at no data, and are not counted here.
    """

    raw: Callable[[Chain], float]
    episodes: int
    data_scale: float
    scale: float = 0.8
    done: int = 0
    last: float = 0.0

    def __call__(self, chain: Chain) -> float:
        self.done += 1
        begins = (self.done - 1) % max(1, round(1 / self.data_scale)) == 0
        w = 0.0 if begins else self.scale * self.done / self.episodes
        self.last = w * self.last + (1 - w) * self.raw(chain)
        return self.last
