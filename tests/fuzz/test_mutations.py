"""Valid files, mutated: whatever becomes of them is read, or refused in one sentence. ``make fuzz`` tries many more."""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from dcmerge.checkpoints import open_checkpoint
from dcmerge.checkpoints.adapter_settings import AdapterSettings
from dcmerge.errors import InputError
from dcmerge.jobs.journal import Journal
from dcmerge.jobs.record import State
from dcmerge.merging.recipe import Recipe
from dcmerge.ui.view import _decoded

FUZZED = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize="FUZZ_EXAMPLES" not in os.environ,
)
TENSORS = {"a.weight": torch.ones(4, 3), "b.bias": torch.zeros(4, dtype=torch.float16)}
HEADER = {
    "a.weight": {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]},
    "b.bias": {"dtype": "F16", "shape": [4], "data_offsets": [48, 56]},
}
ADAPTER = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "rank_pattern": {"q_proj": 3},
    "alpha_pattern": {},
    "target_modules": ["q_proj"],
    "peft_version": "0.18.0",
    "use_rslora": False,
}
RECIPE = {
    "inputs": {"base": {"file": "b.safetensors"}, "one": {"file": "o.safetensors", "sha256": "0" * 64}},
    "method": "ties",
    "parameters": {"density": 0.3},
    "scale": 0.5,
    "content": "model",
    "versions": {"torch": "2.10"},
}
EVENTS = [
    {"time": 1.0, "event": "state", "state": "running", "text": ""},
    {"time": 2.0, "event": "progress", "share": 0.5, "text": "x"},
    {"time": 3.0, "event": "worker", "pid": 1234},
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "../x", "/etc/passwd", "(a+)+", "\x00", "\ud800", "x" * 2000]),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6
)


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """The document with one to three of its places replaced, removed or joined by something else."""
    found = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        place, parents = found, []
        while isinstance(place, (dict, list)) and place and draw(st.booleans() if parents else st.just(True)):
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            parents.append((place, key))
            place = place[key]
        if not parents:
            return draw(VALUES)
        holder, key = parents[-1]
        if draw(st.booleans()):
            holder[key] = draw(VALUES)
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = holder.pop(key)
    return found


def read_or_refused(name: str, content: bytes, read: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            read(path)
        except InputError as error:
            assert "\n" not in str(error)


def every_tensor(path: Path) -> None:
    found = open_checkpoint(path)
    for name in found.infos:
        assert tuple(found.tensor(name).shape) == found.infos[name].shape


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


@FUZZED
@given(changed(HEADER), st.integers(0, 80))
def test_a_header_of_safetensors(header: Any, size: int) -> None:
    text = as_json(header)
    read_or_refused("a.safetensors", struct.pack("<Q", len(text)) + text + bytes(size), every_tensor)


@FUZZED
@given(st.binary(min_size=1, max_size=6), st.integers(0, 10_000), st.sampled_from(["a.safetensors", "a.pt"]))
def test_bytes_of_a_file_of_weights(patch: bytes, place: int, name: str) -> None:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer)
    data = bytearray(save(TENSORS) if name.endswith("safetensors") else buffer.getvalue())
    place %= len(data)
    data[place : place + len(patch)] = patch
    read_or_refused(name, bytes(data), every_tensor)


@FUZZED
@given(changed(ADAPTER))
def test_settings_of_an_adapter(config: Any) -> None:
    def use(path: Path) -> None:
        found = AdapterSettings.open(path)
        assert found.rank_of("layers.0.q_proj") >= 1 and abs(found.scale_of("layers.0.q_proj")) < 1e31

    read_or_refused("adapter_config.json", as_json(config), use)


@FUZZED
@given(changed({"weight_map": {"a.weight": "m.safetensors", "b.bias": "m.safetensors"}}))
def test_an_index_of_shards(index: Any) -> None:
    def use(path: Path) -> None:
        (path.parent / "m.safetensors").write_bytes(save(TENSORS))
        every_tensor(path)

    read_or_refused("model.safetensors.index.json", as_json(index), use)


@FUZZED
@given(changed(RECIPE), st.sampled_from(["r.json", "r.yaml"]))
def test_a_recipe(recipe: Any, name: str) -> None:
    read_or_refused(name, as_json(recipe), Recipe.open)


@FUZZED
@given(st.text(alphabet="abm:!#&*?|-[]{}'\"\n 0x1e.,~tagstrintflo", max_size=80))
def test_a_recipe_of_odd_yaml(text: str) -> None:
    read_or_refused("r.yaml", f"method: ties\n{text}".encode(), Recipe.open)


@FUZZED
@given(changed(EVENTS))
def test_a_journal(events: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        journal.path.write_bytes(b"\n".join(map(as_json, events if isinstance(events, list) else [events])))
        for event in journal.events():
            assert isinstance(event["time"], float | int) and isinstance(event["event"], str)
        assert all(isinstance(State(event["state"]), State) for event in journal.events("state"))
        assert all(event["share"] is None or 0 <= event["share"] <= 1 for event in journal.events("progress"))
        assert all(event["pid"] > 1 for event in journal.events("worker"))


@FUZZED
@given(st.text(max_size=12), st.sampled_from([1.0, 3, True, None, "a", ["a"]]))
def test_a_value_in_an_address(text: str, default: Any) -> None:
    limits = {"min_value": 0, "max_value": 9, "step": 1} if default is None or isinstance(default, (int, float)) else {}
    options = ["a", "b"] if isinstance(default, (str, list)) else None
    try:
        found = _decoded(text, default, options, limits)
    except (ValueError, OverflowError):
        return
    assert found in (0, 1, True, False, *range(10)) or 0 <= found <= 9 if not options else set(found) <= {"a", "b"}
