"""Make the demo zoo again from nothing.

    python -m dcmerge.zoo.build [--work DIR] [--out DIR] [--quick] [--stage STAGE ...]

Stages in order: sources, pools, base, experts, lora, pack. Each keeps its results in the work folder and goes on where
it was interrupted. One thread; the full profile takes about an hour and a half on a processor that multiplies in bfloat16,
and two and a half on another.

The same packages give the same images, bit for bit. Weights are the same only on a processor of the same kind, and where
the base's training was not interrupted: another rounds otherwise, in bfloat16 above all, and a base that goes on draws other
batches. Another build should then agree with the facts of this one within these tolerances, wide enough for another seed:

- zero-shot 4 points in the mean over tasks, 10 on a task; the experts 1.5 points in the mean, 4 on a task
- the base's learned logit scale 3, its calibration error 0.05
- |tau| / |theta0| 0.005, mean cosine of two task vectors 0.02, cross-task energy 0.05
- what averaging closes of the way from base to experts 8 of 100, the best alpha of Task Arithmetic 0.1

Its last step packs the data as a new edition and leaves out comparison.json, which was measured on the old one.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from dcmerge.errors import InputError
from dcmerge.zoo.build import finetune, mix, notice, pack, pools, pretrain, sources
from dcmerge.zoo.build.profile import FULL, QUICK, Profile
from dcmerge.zoo.build.tasks import BY_NAME, TASKS

STAGES = ("sources", "pools", "base", "experts", "lora", "pack")


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen stages; returns the exit code (2 for bad input or missing sources)."""
    parser = argparse.ArgumentParser(
        prog="python -m dcmerge.zoo.build", description="Build the embedded demo zoo from its sources."
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path.home() / ".cache" / "dcmerge-zoo",
        help="folder for downloads and intermediate files",
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "data", help="where the finished zoo goes")
    parser.add_argument("--quick", action="store_true", help="a rough zoo in a few minutes of training")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES, help="only these stages")
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=list(BY_NAME),
        default=list(BY_NAME),
        help="only these tasks (pools, experts, lora)",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    torch.set_num_threads(options.threads)
    try:
        for stage in STAGES:
            if stage in options.stage:
                run_stage(stage, options.work, options.out, QUICK if options.quick else FULL, options.tasks)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def run_stage(stage: str, work: Path, out: Path, profile: Profile, tasks: list[str] | None = None) -> None:
    """One stage of the build; models live in work/<profile>, images in work/pools."""
    run, names = work / profile.name, tasks or [task.name for task in TASKS]
    if stage == "sources":
        sources.fetch(work)
    elif stage == "pools":
        pools.build(work, names, profile.train_size, profile.seed)
        mix.build(work, profile.seed)
    elif stage == "base":
        pretrain.train_base(work, run, profile.base, profile.seed)
    elif stage == "experts":
        for name in names:
            finetune.train_expert(work, run, name, profile.expert, profile.seed)
    elif stage == "lora":
        for name in names:
            finetune.train_lora(work, run, name, profile.lora, profile.seed)
    elif stage == "pack":
        pack.pack(work, run, out, profile)
        notice.write(work, out.parent / "NOTICE")


if __name__ == "__main__":
    raise SystemExit(main())
