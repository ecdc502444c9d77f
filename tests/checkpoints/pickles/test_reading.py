"""What is read out of a pickle equals the module's own state dict, and nothing in a pickle is ever called."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dcmerge.checkpoints import pickles
from dcmerge.checkpoints.pickles.harvest import harvest
from dcmerge.checkpoints.pickles.reading import PickleFile
from dcmerge.checkpoints.pickles.vocabulary import Refused
from dcmerge.errors import InputError
from tests.checkpoints import pickles as this_package

WRAPPINGS = ("zip", "legacy", "plain0", "plain2", "plain4", "nested")
OLD_FORMAT = {"_use_new_zipfile_serialization": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pickles whose classes exist in no process but the one that made them."""
    folder = tmp_path_factory.mktemp("made")
    maker = Path(this_package.__file__).with_name("maker.py")
    subprocess.run([sys.executable, str(maker), str(folder)], check=True, capture_output=True)
    return folder


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors, read in this very process."""
    file = PickleFile(path)
    return {name: file.read(tensor) for name, tensor in harvest(file).tensors.items()}


def assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", ["encoder", "head"])
def test_a_module_gives_its_state_dict(made: Path, name: str, wrapping: str) -> None:
    assert "src" not in sys.modules
    found = read(made / f"{name}_{wrapping}.pt")
    assert_equal(found, load_file(made / f"{name}.safetensors"))


def test_what_a_state_dict_leaves_out_is_left_out(made: Path) -> None:
    found = read(made / "encoder_zip.pt")
    assert "attn_mask" in found and "extra.norm.num_batches_tracked" in found and "extra.tied.weight" in found
    assert not {"not_saved", "not_registered", "none"} & set(found)


def test_the_process_apart_writes_the_same(made: Path, tmp_path: Path) -> None:
    for wrapping in ("zip", "plain4"):
        done = pickles.convert_pickle(made / f"encoder_{wrapping}.pt", tmp_path / "new.safetensors")
        wanted = load_file(made / "encoder.safetensors")
        assert (done.tensors, done.source) == (len(wanted), "the module src.modeling.ImageEncoder")
        assert_equal(load_file(tmp_path / "new.safetensors"), wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["new.safetensors"]


def test_a_head_in_memory(made: Path) -> None:
    assert_equal(pickles.pickled_tensors(made / "head_legacy.pt"), load_file(made / "head.safetensors"))


@pytest.mark.parametrize("options", [{}, OLD_FORMAT], ids=["zip", "legacy"])
def test_a_state_dict_with_settings_beside_it(tmp_path: Path, options: dict) -> None:
    state = nn.Linear(3, 2).state_dict()
    torch.save({"state_dict": state, "args": nn.Identity(), "epoch": 4}, tmp_path / "a.pt", **options)
    found = harvest(PickleFile(tmp_path / "a.pt"))
    assert found.left_out == ("args", "epoch")
    assert_equal(read(tmp_path / "a.pt"), dict(state))


def test_buffers_of_modules_before_there_were_unsaved_ones(tmp_path: Path) -> None:
    module = nn.BatchNorm1d(3)
    del module.__dict__["_non_persistent_buffers_set"]
    torch.save(module, tmp_path / "a.pt")
    assert set(read(tmp_path / "a.pt")) == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def test_a_view_of_a_large_storage_is_read_alone(tmp_path: Path) -> None:
    flat = torch.arange(1000.0)
    torch.save({"a": flat[10:20], "b": flat[::7][:3], "c": flat[5].clone()}, tmp_path / "a.pt")
    assert_equal(read(tmp_path / "a.pt"), {"a": flat[10:20], "b": flat[::7][:3], "c": flat[5]})


class Runs:
    """Pickled, it is a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def system(folder: Path) -> Runs:
    return Runs(os.system, f"touch {folder / 'hacked'}")


def module_with(value: object, where: str = "attribute") -> nn.Module:
    module = nn.Linear(2, 2)
    if where == "attribute":
        module.note = value
    elif where == "parameter":
        module._parameters["more"] = value
    else:
        module._modules["more"] = value
    return module


class BuiltInto:
    """Pickled, it is an object whose state holds a call."""

    def __init__(self, value: object) -> None:
        self.value = value


class ListOfCalls(list):
    """Pickled, its items are appended one after another."""


def from_type(folder: Path) -> Runs:
    return Runs(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (f"touch {folder / 'hacked'}",), {})


def through_getattr(folder: Path) -> Runs:
    return Runs(getattr, system(folder), "anything")


MALICIOUS = {
    "system": (system, r"posix\.system"),
    "system in a state dict": (lambda f: {"w": torch.ones(2), "x": system(f)}, r"posix\.system"),
    "nested": (lambda f: {"w": [({"x": [system(f)]},)]}, r"posix\.system"),
    "as an attribute": (lambda f: module_with(system(f)), r"posix\.system"),
    "as a parameter": (lambda f: module_with(system(f), "parameter"), r"posix\.system"),
    "as a module": (lambda f: module_with(system(f), "module"), r"posix\.system"),
    "in a state": (lambda f: module_with(BuiltInto(system(f))), r"posix\.system"),
    "in a list's items": (lambda f: module_with(ListOfCalls([system(f)])), r"posix\.system"),
    "as a key": (lambda f: {system(f): torch.ones(2)}, r"posix\.system"),
    "eval": (lambda f: Runs(eval, f"open({str(f / 'hacked')!r}, 'w')"), r"builtins?(__)?\.eval"),
    "exec": (lambda f: Runs(exec, "1"), r"builtins?(__)?\.exec"),
    "getattr": (through_getattr, r"getattr|posix\.system"),
    "getattr alone": (lambda f: Runs(getattr, BuiltInto, "value"), r"builtins?(__)?\.getattr"),
    "partial": (lambda f: Runs(partial, os.system), r"functools\.partial"),
    "rebuild from type": (from_type, r"posix\.system, which would be called to make a tensor"),
    "a type of tensor": (
        lambda f: Runs(torch._tensor._rebuild_from_type_v2, torch._utils._rebuild_parameter, Runs, (), {}),
        "a tensor of the type",
    ),
    "torch.load": (lambda f: Runs(torch.load, str(f / "x.pt")), r"torch\.serialization\.load"),
    "hub": (lambda f: Runs(torch.hub.load, "a/b", "c"), r"torch\.hub\.load"),
    "quantised": (
        lambda f: {"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)},
        r"a quantised tensor|names no storage",
    ),
    "sparse": (lambda f: {"w": torch.eye(3).to_sparse()}, "a sparse tensor"),
    "meta": (lambda f: {"w": torch.ones(2, device="meta")}, "a tensor without data"),
    "storages by hand": (lambda f: Runs(torch._utils._rebuild_tensor_v2, 5, 0, (1,), (1,), False, None), "make no sense"),
    "bytes by hand": (lambda f: Runs(torch.storage._load_from_bytes, b"cos\nsystem\n."), r"no storage|make no sense"),
}


@pytest.mark.filterwarnings("ignore:.*quantize.*:", "ignore:.*Quantize.*:", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("options", [{}, OLD_FORMAT, None], ids=["zip", "legacy", "plain"])
@pytest.mark.parametrize(("build", "named"), MALICIOUS.values(), ids=MALICIOUS)
def test_whatever_would_be_called_is_refused_by_name(tmp_path: Path, build, named: str, options: dict | None) -> None:
    path = tmp_path / "a.pt"
    try:
        if options is None:
            path.write_bytes(pickle.dumps(build(tmp_path)))
        else:
            torch.save(build(tmp_path), path, **options)
    except NotImplementedError:
        pytest.skip("torch does not write this so")
    with pytest.raises(Refused, match=named):
        read(path)
    assert not (tmp_path / "hacked").exists()


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


BY_HAND = {
    "INST": b"(S'touch hacked'\nios\nsystem\n.",
    "OBJ": opcodes(b"(cos\nsystem\n", text("touch hacked"), b"o"),
    "GLOBAL and REDUCE": opcodes(b"cposix\nsystem\n", text("touch hacked"), b"\x85R"),
    "STACK_GLOBAL": b"\x80\x04" + text("posix") + text("system") + b"\x93" + text("touch hacked") + b"\x85R.",
    "attributes of a class": opcodes(b"cos\nsystem\nN}", text("__setstate__"), b"cbuiltins\neval\ns\x86b"),
    "attributes of a rebuilder": opcodes(b"ctorch._utils\n_rebuild_tensor_v2\nN}", text("_name"), text("x"), b"s\x86b"),
    "a reconstructor of a rebuilder": opcodes(b"ccopyreg\n_reconstructor\nccollections\nOrderedDict\n0N", b"N\x87R"),
    "an unknown extension": opcodes(b"\x82\x05"),
}


@pytest.mark.parametrize("content", BY_HAND.values(), ids=BY_HAND)
def test_opcodes_written_by_hand_call_nothing(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises((Refused, pickle.UnpicklingError, TypeError, AttributeError, ValueError)):
        read(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


def test_a_name_alone_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_by_a_pickle.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a.pt").write_bytes(opcodes(b"}", text("w"), b"cimported_by_a_pickle\nThing\ns"))
    with pytest.raises(Refused, match="without a tensor"):
        read(tmp_path / "a.pt")
    assert "imported_by_a_pickle" not in sys.modules


def changed_record(path: Path, name: str, change) -> None:
    """One record of a torch archive replaced."""
    with zipfile.ZipFile(path) as archive:
        records = {record: archive.read(record) for record in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for record, content in records.items():
            archive.writestr(record, change(content) if record.endswith(name) else content)


def test_a_storage_that_claims_more_than_there_is(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(300)}, tmp_path / "a.pt")
    changed_record(tmp_path / "a.pt", "data/0", lambda content: content[:16])
    with pytest.raises(Refused, match="claims more bytes"):
        read(tmp_path / "a.pt")


def test_a_tensor_that_repeats_a_few_bytes(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(2**40)}, tmp_path / "a.pt")
    with pytest.raises(Refused, match="claims more bytes"):
        read(tmp_path / "a.pt")


def test_a_tensor_beyond_the_end_of_its_storage(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "a.pt")
    changed_record(tmp_path / "a.pt", "data.pkl", lambda content: content.replace(b"K\x04\x85", b"K\x05\x85"))
    with pytest.raises(Refused, match="claims more bytes"):
        read(tmp_path / "a.pt")


def test_a_huge_claim_in_the_old_format(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "a.pt", **OLD_FORMAT)
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[:-24] + struct.pack("<q", 2**60) + content[-16:])
    with pytest.raises(Refused, match="claims more bytes"):
        read(tmp_path / "a.pt")


def test_the_same_tensor_a_thousand_times(tmp_path: Path) -> None:
    big = torch.ones(10_000)
    torch.save({f"w{number}": big for number in range(1000)}, tmp_path / "a.pt")
    with pytest.raises(Refused, match="again and again"):
        read(tmp_path / "a.pt")


def test_modules_within_themselves_and_doubled(tmp_path: Path) -> None:
    loop = nn.Sequential(nn.Linear(1, 1))
    loop._modules["loop"] = loop
    torch.save(loop, tmp_path / "loop.pt")
    doubled = nn.Linear(1, 1, bias=False)
    for _ in range(60):
        doubled = nn.Sequential(doubled, doubled)
    torch.save(doubled, tmp_path / "doubled.pt")
    for name in ("loop", "doubled"):
        with pytest.raises(Refused, match="without an end|more than 200000"):
            read(tmp_path / f"{name}.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_program_is_read_for_its_tensors_and_not_run(tmp_path: Path) -> None:
    """OpenAI's CLIP lies in such archives: the attributes of its modules, by their names."""
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    torch.jit.script(module).save(tmp_path / "script.pt")
    assert_equal(read(tmp_path / "script.pt"), module.state_dict())


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
    with pytest.raises(Refused, match="compressed record"):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.ones(3), "one tensor without a name"),
        ([torch.ones(3)], "a list"),
        ({"a": 1}, "without a tensor"),
        (OrderedDict(__metadata__=torch.ones(1)), "called __metadata__"),
    ],
)
def test_what_has_no_named_tensors(tmp_path: Path, value: object, told: str) -> None:
    torch.save(value, tmp_path / "a.pt")
    with pytest.raises(Refused, match=told):
        read(tmp_path / "a.pt")


def memo_bomb(path: Path) -> Path:
    path.write_bytes(opcodes(b"Nr" + struct.pack("<I", 2**32 - 2)))
    return path


def tuple_bomb(path: Path) -> Path:
    """Each tuple holds the one before it twice, and the last is a key, whose hash visits them all: 2^60 steps."""
    path.write_bytes(opcodes(b"}", b"N", b"2\x86" * 60, b"Ns"))
    return path


def list_bomb(path: Path) -> Path:
    """So deep that Python's own recursion ends."""
    path.write_bytes(opcodes(b"}" + b")" + b"\x85" * 5_000_000 + b"Ns"))
    return path


@pytest.mark.parametrize("bomb", [memo_bomb, list_bomb])
def test_bombs_end_in_one_sentence_and_leave_nothing(tmp_path: Path, bomb) -> None:
    path = bomb(tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"nothing was written\.$") as caught:
        pickles.convert_pickle(path, tmp_path / "new.safetensors")
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


def test_endless_work_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tuple_bomb(tmp_path / "a.pt")
    monkeypatch.setattr("dcmerge.checkpoints.pickles.convert._WAITING", 0.1)
    with pytest.raises(InputError, match=r"took longer than 6\.0 s; nothing was written\.$"):
        pickles.convert_pickle(path, tmp_path / "new.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


def test_a_refusal_apart_leaves_an_existing_file_alone(tmp_path: Path) -> None:
    torch.save(module_with(system(tmp_path)), tmp_path / "a.pt")
    (tmp_path / "new.safetensors").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds posix\.system, which would be called.*nothing was executed or written"):
        pickles.convert_pickle(tmp_path / "a.pt", tmp_path / "new.safetensors")
    assert (tmp_path / "new.safetensors").read_bytes() == b"mine"
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.pt", "new.safetensors"}
