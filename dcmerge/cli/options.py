"""What several commands ask for: a base and its experts, a method and its parameters, a zoo."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dcmerge.checkpoints.regrouped import QKV, STORED
from dcmerge.cli.fitting import add_fit, fit_of
from dcmerge.cli.folders import on_disk, set_in
from dcmerge.cli.parser import ALL as ALL
from dcmerge.cli.parser import Commands as Commands
from dcmerge.cli.parser import Parser as Parser
from dcmerge.cli.parser import add_command as add_command
from dcmerge.cli.parser import add_threads as add_threads
from dcmerge.cli.parser import number as number
from dcmerge.cli.parser import pair as pair
from dcmerge.cli.parser import whole_number as whole_number
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.evaluation.datasets import SPLIT_RULES
from dcmerge.evaluation.own_models import BenchSpecification, open_bench
from dcmerge.methods import method
from dcmerge.methods.declare import value_text
from dcmerge.vectors.task_vectors import TaskVectors
from dcmerge.zoo import Zoo, open_zoo

Progress = Callable[[float, str], None]


def collected(pairs: Iterable[tuple[str, str]], option: str) -> dict[str, str]:
    """Pairs as a mapping; raises InputError where a name comes twice."""
    mapping: dict[str, str] = {}
    for name, value in pairs:
        if name in mapping:
            raise InputError(f"{option}: expected every name once, got {name!r} twice")
        mapping[name] = value
    return mapping


def add_model_set(parser: argparse.ArgumentParser) -> None:
    """``--from``, ``--base``, ``--expert`` and ``--zoo``."""
    group = parser.add_argument_group("models")
    add_folder(group)
    group.add_argument(
        "--base", metavar="FILE", help="the pre-trained model, a path or hub:owner/name@revision; LoRA adapters do without"
    )
    group.add_argument(
        "--expert",
        action="append",
        default=[],
        type=pair("NAME=PATH"),
        metavar="NAME=PATH",
        help="task and fine-tuned model or LoRA adapter, a path or hub:owner/name@revision; once for each expert",
    )
    group.add_argument("--zoo", metavar="NAME", help="an embedded zoo instead: demo or demo-lora")
    add_download(group)
    add_qkv(group)
    add_fit(group)


def add_download(group: argparse._ActionsContainer) -> None:
    """``--download``."""
    group.add_argument(
        "--download",
        action="store_true",
        help="fetch what is not on this machine: models of the hub, data sets, an encoder's weights (default: fetch nothing)",
    )


def add_qkv(group: argparse._ActionsContainer) -> None:
    """``--qkv``."""
    group.add_argument(
        "--qkv",
        choices=QKV,
        default=STORED,
        help="merge attention's q, k and v as three matrices, as one, or (default) as stored",
    )


def add_folder(group: argparse._ActionsContainer) -> None:
    """``--from``."""
    group.add_argument(
        "--from",
        dest="folder",
        metavar="FOLDER",
        help="find base and experts in a folder (or in hub:owner/name), as inspect shows them",
    )


def add_bench(parser: argparse.ArgumentParser) -> None:
    """``--encoder``, ``--data`` and what else says how models that are no zoo are evaluated; see ``BenchSpecification``."""
    group = parser.add_argument_group("images and heads, for your own models")
    group.add_argument("--encoder", metavar="NAME", help="open_clip's name (ViT-B-32-quickgelu for OpenAI's weights) or a *.json")
    group.add_argument("--data", metavar="FOLDER", help="where the data sets lie, as torchvision has them or as class folders")
    group.add_argument(
        "--dataset",
        action="append",
        default=[],
        type=pair("TASK=NAME"),
        metavar="TASK=NAME",
        help="the data set of a task: a name of the literature, a folder, or none",
    )
    group.add_argument("--heads", metavar="FOLDER", help="head files (default: computed by the text tower)")
    group.add_argument(
        "--split-rule",
        choices=tuple(SPLIT_RULES),
        default="task_arithmetic",
        help="; ".join(f"{name}: {text}" for name, text in SPLIT_RULES.items()).replace("%", "%%"),
    )


def bench_specification(args: argparse.Namespace) -> BenchSpecification | None:
    """What those options say; None where none was given. Raises InputError where they are no whole.

    The set of ``--from`` may bring the encoder's name and the folder of heads.
    """
    given = [f"--{name}" for name in ("encoder", "data", "dataset", "heads", "weights") if getattr(args, name, None)]
    if not given:
        return None
    if args.zoo:
        raise InputError(f"expected {given[0]} without --zoo, which brings its images, got both")
    found = set_in(args.folder, args.base, download=args.download) if args.folder else None
    encoder = args.encoder or (found and found.encoder)
    if not encoder:
        raise InputError(f"expected --encoder NAME with {given[0]}, got none")
    heads = args.heads or (str(next(iter(found.heads.values())).parent) if found and found.heads else None)
    limit = getattr(args, "limit", None)
    val_limit = limit if getattr(args, "val_limit", None) is None else args.val_limit
    return BenchSpecification(
        encoder,
        args.data,
        heads,
        args.weights,
        collected(args.dataset, "--dataset"),
        args.split_rule,
        limit,
        val_limit,
        args.download,
    )


def set_title(args: argparse.Namespace) -> str:
    """ "the zoo demo", or the models in a few words."""
    if args.folder:
        return f"the models in {args.folder}" + (f" on the tasks of the zoo {args.zoo}" if args.zoo else "")
    return f"the zoo {args.zoo}" if args.zoo else f"{len(args.expert)} experts of {args.base or 'no base'}"


def set_name(args: argparse.Namespace) -> str:
    """How runs call the models: the zoo, else the folder, else the base's path."""
    return args.folder or args.zoo or str(args.base)


def named_models(
    args: argparse.Namespace, progress: Progress | None = None
) -> tuple[str | Path | None, Mapping[str, str | Path]]:
    """Base, and task to path, of ``--from`` or of ``--base`` and ``--expert``; of a zoo neither.

    Models of the hub are fetched where ``--download`` allows it. Raises InputError where several of them are named or none is,
    and for a folder without one set that can be opened.
    """
    given = {"--zoo": args.zoo, "--from": args.folder, "--expert": args.expert}
    named = [option for option, value in given.items() if value]
    if args.zoo and (args.base or len(named) > 1):
        raise InputError("expected a zoo or a base with experts, got both")
    if len(named) > 1:
        raise InputError("expected --from FOLDER or experts one by one (--expert NAME=PATH), got both")
    if not named:
        raise InputError("expected --zoo NAME, --from FOLDER or at least one --expert NAME=PATH, got neither")
    if args.folder:
        found = set_in(args.folder, args.base, download=args.download, progress=progress)
        return found.base, found.experts
    named = {"": args.base, **collected(args.expert, "--expert")}
    here = {task: path and on_disk(path, args.download, progress) for task, path in named.items()}
    return here.pop(""), here


def open_vectors(args: argparse.Namespace, progress: Progress | None) -> TaskVectors:
    """The model set that the options name, examined."""
    return open_models(args, progress)[0]


def open_models(args: argparse.Namespace, progress: Progress | None) -> tuple[TaskVectors, Bench | None]:
    """The same with its bench, where it has images to evaluate on."""
    base, experts = named_models(args, progress)
    fit, specification = fit_of(args), bench_specification(args)  # before a zoo is opened, which takes no such options
    if args.zoo:
        zoo = named_zoo(args.zoo, progress, args.qkv)
        return zoo.vectors, zoo.bench
    vectors = TaskVectors.open(base, experts, qkv=args.qkv, fit=fit, progress=progress)
    return vectors, open_bench(vectors, specification, progress=progress) if specification else None


def opened_bench(args: argparse.Namespace, progress: Progress | None) -> Bench:
    """The bench of the models: a zoo's own, the models of ``--from`` on a zoo's tasks, or with images of one's own.

    Raises InputError where they come without images.
    """
    bench = _on_tasks_of_zoo(args, progress) if args.zoo and args.folder else open_models(args, progress)[1]
    if bench is None:
        raise InputError("expected images to evaluate on: --zoo NAME, or --encoder NAME and --data FOLDER, got neither")
    return bench


def _on_tasks_of_zoo(args: argparse.Namespace, progress: Progress | None) -> Bench:
    """The models of a folder on a zoo's tasks of the same names; raises InputError where one of the experts has none."""
    bench_specification(args)
    bench, found = named_zoo(args.zoo, progress).bench, set_in(args.folder, args.base, download=args.download)
    without = [task for task in found.experts if task not in bench.tasks]
    if without:
        raise InputError(f"from: expected experts of the zoo's tasks ({', '.join(bench.tasks)}), got {', '.join(without)}")
    vectors = TaskVectors.open(found.base, found.experts, qkv=args.qkv, fit=fit_of(args), progress=progress)
    return Bench(bench.encoder, {task: bench.tasks[task] for task in vectors.tasks}, vectors)


def named_zoo(name: str, progress: Progress | None, qkv: str = STORED) -> Zoo:
    """An embedded zoo; raises InputError for an unknown one and where its files are missing."""
    return open_zoo(name, qkv=qkv, progress=progress)


def add_method(parser: argparse._ActionsContainer, **method_settings: Any) -> None:
    """``--method`` and ``--set``."""
    parser.add_argument("--method", metavar="SLUG", help="see the command methods", **method_settings)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=pair("KEY=VALUE"),
        metavar="KEY=VALUE",
        help="a parameter of the method; once for each parameter",
    )


def method_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Every parameter of the chosen method, validated; raises InputError for an unknown method, name or value."""
    return method(args.method).parse(collected(args.set, "--set"))


def parameters_text(values: Mapping[str, Any]) -> str:
    """ "density 0.2, aggregate mean" of a method's parameters."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in values.items())
