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


FULL = Profile(
    "full",
    12000,
    Schedule(1200, 1e-3, 256, 50, horizon=1700, cooldown=200),
    Schedule(200, 2e-4, 128, 12),
    Schedule(150, 4e-3, 128, 12),
)
QUICK = Profile("quick", 12000, Schedule(100, 8e-4, 128, 20), Schedule(40, 3e-4, 32, 5), Schedule(30, 1e-3, 32, 5))
