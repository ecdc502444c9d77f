"""How long everything is trained: the shipped zoo ("full") and a rough one for development ("quick")."""

from __future__ import annotations

from dataclasses import dataclass

from dcmerge.zoo.build.pretrain import Schedule


@dataclass(frozen=True)
class Profile:
    """Sizes of the pools and the three training schedules."""

    name: str
    train_size: int
    base: Schedule
    expert: Schedule
    lora: Schedule
    seed: int = 0


FULL = Profile("full", 12000, Schedule(3200, 1e-3, 160, 50), Schedule(1500, 3e-4, 32, 50), Schedule(700, 2e-3, 32, 30))
QUICK = Profile("quick", 12000, Schedule(100, 8e-4, 128, 20), Schedule(40, 3e-4, 32, 5), Schedule(30, 1e-3, 32, 5))
