"""Words on the command line that are no values: numbers out of all ranges, names of nothing, files in the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.corpus.making import Case, merged, merging, model, raw

#: Of each option, values that it cannot have, behind a sound merge.
MERGE: dict[str, Sequence[str]] = {
    "--scale": ("nan", "inf", "-inf", "1e999", "", "half", "0x10", "1e9", "9" * 5_000),
    "--method": ("", "TIES", "../ties", "ties\x1b[2J", "x" * 5_000, "\0"),
    "--set": ("density", "=1", "density=", "density=nan", "density=2", "density=" + "9" * 5_000, "den\x1b[sity=1", "d=1"),
    "--dtype": ("float8", "FLOAT32"),
    "--threads": ("0", "100000", "two", "9" * 5_000),
    "--tolerance": ("-1", "nan", "x", "1e999"),
    "--adapter-rank": ("0", "-3", "x", "9" * 5_000),
    "--qkv": ("", "both", "\x1b[2J"),
    "--only": ("nothing.*", "[", "\x1b[2J*", "?" * 300),
    "--weights": ("nobody=1", "task0", "task0=", "task0=nan", "task0=x", "=1"),
    "--depth": ("", "x", "task0=", "0:nan", "1:2:3:4", "nobody=linear"),
    "--vocabulary": ("union!", ""),
    "--expert": ("x", "=x", "task0=elsewhere", "\x1b[2J=x", "x=\0"),
    "--base": ("", "\0", "nowhere", "/dev/null", "."),
    "--from": (".", "nowhere", "\0"),
    "--zoo": ("nowhere", "demo", "../demo", "\x1b[2J"),
    "--encoder": ("nowhere", "../x.json", "ViT-B-32\x1b[2J"),
    "--plugin": ("nowhere.py", "/dev/zero", "base.safetensors", "."),
    "--measure": ("all", "test"),
    "--task": ("nobody",),
    "--recipe": ("/no/such/r.yaml", "\0", "base.safetensors"),
}
OUT: dict[str, str] = {
    "another kind": "out.pt",
    "a folder that is not there": "no/where/out.safetensors",
    "below a file": "base.safetensors/out.safetensors",
    "one of the inputs": "base.safetensors",
    "nothing": "",
    "a NUL": "o\0.safetensors",
    "a long name": "o" * 300 + ".safetensors",
    "control characters in a folder": "\x1b[2J/out.safetensors",
    "a device": "/dev/full/out.safetensors",
}
COMMANDS: dict[str, Sequence[str]] = {
    "no command": (),
    "an unknown command": ("mrege",),
    "a command with control characters": ("\x1b[2Jmerge",),
    "a command without anything": ("merge",),
    "an unknown option": ("inspect", "--fast"),
    "an option cut short": ("inspect", "--exp", "a=b"),
    "inspect of nothing": ("inspect",),
    "inspect of a folder that is not there": ("inspect", "nowhere"),
    "inspect of the processes": ("inspect", "/proc/self/fd"),
    "inspect of a device": ("inspect", "/dev/zero"),
    "inspect of an empty folder": ("inspect", "."),
    "convert of nothing": ("convert",),
    "convert of a folder": ("convert", ".", "o.safetensors"),
    "convert of what is not there": ("convert", "a.pt", "o.safetensors"),
    "convert into another kind": ("convert", "a.pt", "o.pt"),
    "convert of a device": ("convert", "/dev/zero", "o.safetensors"),
    "verify of what is not there": ("verify", "m.safetensors"),
    "verify of a folder": ("verify", "."),
    "recipe of a device": ("recipe", "/dev/urandom"),
    "run of a device": ("run", "/dev/zero"),
    "evaluate of nothing": ("evaluate",),
    "evaluate with a limit of 0": ("evaluate", "--zoo=demo", "--method=ties", "--limit=0"),
    "evaluate on a split that is none": ("evaluate", "--zoo=demo", "--method=ties", "--split=train"),
    "evaluate at a scale that is none": ("evaluate", "--zoo=demo", "--method=ties", "--scale=auto1"),
    "evaluate of a zoo that is none": ("evaluate", "--zoo=demo2", "--method=ties"),
    "compare of a method that is none": ("compare", "--zoo=demo", "--methods=ties,nobody", "--quick"),
    "compare of no methods": ("compare", "--zoo=demo", "--methods=,", "--quick"),
    "compare with a setting that is none": ("compare", "--zoo=demo", "--methods=ties", "--set=ties.speed=1"),
    "compare into a folder that is not there": ("compare", "--zoo=demo", "--methods=ties", "--csv=no/where.csv"),
    "sweep over nothing": ("sweep", "--zoo=demo", "--method=ties"),
    "sweep over an unknown parameter": ("sweep", "--zoo=demo", "--method=ties", "--over=speed=1:2"),
    "sweep backwards": ("sweep", "--zoo=demo", "--method=ties", "--over=density=0.9:0.1"),
    "sweep to infinity": ("sweep", "--zoo=demo", "--method=ties", "--over=density=0:inf"),
    "sweep over a logarithm of nothing": ("sweep", "--zoo=demo", "--method=ties", "--over=density=0:1:log"),
    "sweep twice over one": ("sweep", "--zoo=demo", "--method=ties", "--over=density=0.1:0.2", "--over=density=0.1:0.2"),
    "sweep of no trials": ("sweep", "--zoo=demo", "--method=ties", "--over=density=0.1:0.2", "--trials=0"),
    "sweep of a method without parameters": ("sweep", "--zoo=demo", "--method=average", "--over=rho=1:2"),
    "zoo of nothing": ("zoo", "--zoo=nothing"),
    "spectra at a rho of nothing": ("spectra", "--zoo=demo", "--smoothing=linear", "--rho=nan"),
    "spectra of a layer that is none": ("spectra", "--zoo=demo", "--layer=nobody.*"),
    "spectra of a rank of zero": ("spectra", "--zoo=demo", "--rank=0"),
    "methods checked by an unknown name": ("methods", "--check=nobody"),
    "methods of a plugin that is a folder": ("methods", "--plugin=."),
    "jobs of an action that is none": ("jobs", "stop"),
    "jobs shown without an id": ("jobs", "show"),
    "jobs shown by nobody's id": ("jobs", "show", "\x1b[2J"),
    "jobs shown by a way up": ("jobs", "show", "../.."),
    "jobs cancelled by nothing": ("jobs", "cancel", ""),
    "runs shown by nobody's id": ("runs", "show", "'; DROP TABLE runs; --"),
    "runs shown without an id": ("runs", "show"),
    "runs compared alone": ("runs", "compare", "x"),
    "runs limited to nothing": ("runs", "--limit=0"),
    "runs exported nowhere": ("runs", "export"),
    "runs exported to a folder that is not there": ("runs", "export", "--out=no/where/r.csv"),
    "runs published nowhere": ("runs", "publish"),
    "runs published to nobody": ("runs", "publish", "--to=nobody"),
    "runs imported from nowhere": ("runs", "import", "nowhere"),
    "runs imported from a device": ("runs", "import", "/dev/zero"),
    "cache of an action that is none": ("cache", "burn"),
    "app on a port of nothing": ("app", "--port=0"),
    "app on a port of 65536": ("app", "--port=65536"),
    "app on a port of letters": ("app", "--port=http"),
    "app below what is not there": ("app", "--root=nowhere"),
    "app below a file": ("app", "--root=/etc/passwd"),
}
#: These say nothing that is wrong, or nothing yet.
HARMLESS = ("inspect of an empty folder", "inspect of the processes")


def _option(option: str, value: str) -> Case:
    def make(folder: Path) -> list[str]:
        argv = merging(folder, model(folder / "one.safetensors", 1), method="ties")
        if option in ("--scale", "--method"):
            argv = [word for word in argv if not word.startswith(option)]
        return [*argv, f"{option}={value}"]

    return Case(f"merge {option}={value!r:.40}", "refused", make)


def _out(name: str, out: str) -> Case:
    def make(folder: Path) -> list[str]:
        argv = merging(folder, model(folder / "one.safetensors", 1))
        return [*(word for word in argv if not word.startswith("--out")), f"--out={folder / out if out else ''}"]

    return Case(f"merge into {name}", "refused", make)


def _in_the_way(put: Callable[[Path], object], out: str = "out.safetensors") -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        put(folder / out)
        return merging(folder, model(folder / "one.safetensors", 1), out=out)

    return make


def _no_expert(folder: Path) -> list[str]:
    return merged(folder, model(folder / "base.safetensors", 0), [])


CASES = [
    *(_option(option, value) for option, values in MERGE.items() for value in values),
    *(_out(name, out) for name, out in OUT.items()),
    *(
        Case(name, "either" if name in HARMLESS else "refused", lambda folder, words=words: list(words))
        for name, words in COMMANDS.items()
    ),
    Case("merge onto a file that is there", "refused", _in_the_way(lambda path: raw(path, b"mine"))),
    Case("merge onto a folder that is there", "refused", _in_the_way(lambda path: raw(path / "mine", b"x"))),
    Case("merge onto a link", "refused", _in_the_way(lambda path: path.symlink_to("nowhere"))),
    Case("merge of no experts", "refused", _no_expert),
]
