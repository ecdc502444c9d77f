"""Sweeps: a method's parameters and α varied, each point judged on validation images, the chosen one looked at once on test."""

from dcmerge.studies.sweep.axes import SCALE, Axis
from dcmerge.studies.sweep.found import Found, described
from dcmerge.studies.sweep.plan import GRID, SAMPLERS, TRIALS, Plan
from dcmerge.studies.sweep.points import COST, OBJECTIVES, Arm, Point

__all__ = ["COST", "GRID", "OBJECTIVES", "SAMPLERS", "SCALE", "TRIALS", "Arm", "Axis", "Found", "Plan", "Point", "described"]
