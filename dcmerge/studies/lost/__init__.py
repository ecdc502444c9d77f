"""Lost images: where the expert is right and the merge wrong, the reverse, and where two runs differ."""

from dcmerge.studies.lost.found import BOTH, FATES, LOST, NEITHER, WON, Answers, Lost, TaskAnswers
from dcmerge.studies.lost.measuring import lost_images
from dcmerge.studies.lost.runs import RunsApart, TaskApart, images_of_run, runs_apart

__all__ = [
    "BOTH",
    "FATES",
    "LOST",
    "NEITHER",
    "WON",
    "Answers",
    "Lost",
    "RunsApart",
    "TaskAnswers",
    "TaskApart",
    "images_of_run",
    "lost_images",
    "runs_apart",
]
