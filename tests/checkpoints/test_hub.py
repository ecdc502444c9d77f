"""Models of the hub: their names, the cache of the hub's library, and fetching from a server that speaks its calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import save

import dcmerge
from dcmerge.checkpoints import open_checkpoint
from dcmerge.checkpoints.hub import HubName, cached, fetched, located, name_in_cache, planned_fetch
from dcmerge.checkpoints.hub.fetching import chosen_files
from dcmerge.errors import Cancelled, InputError
from tests.builders import random_tensors
from tests.hub import COMMIT, NEXT, Hub, fill_cache, serving

WEIGHTS = save(random_tensors(1))
MODEL = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(Hub({"me/cats": dict(MODEL)})) as one:
        monkeypatch.setattr(constants, "ENDPOINT", one.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", one.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hub:me/cats", HubName("me/cats")),
        ("me/cats@v1.0", HubName("me/cats", "v1.0")),
        ("hub:me/cats@refs/pr/1", HubName("me/cats", "refs/pr/1")),
        ("hub:me/cats@v1/a/b.safetensors", HubName("me/cats", "v1", "a/b.safetensors")),
        ("hub:me/cats/a/", HubName("me/cats", "main", "a")),
    ],
)
def test_names_of_the_hub(text: str, expected: HubName) -> None:
    assert HubName.of(text) == expected
    assert HubName.of(expected.text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hub:",
        "hub:cats",
        "hub:../cats",
        "hub:me/..",
        "hub:me/cats@..",
        "hub:me/cats/../../x",
        "hub:/etc/passwd",
        "hub:me/ca ts",
        "me\0/cats",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected hub:owner/name"):
        HubName.of(text)


def test_a_filled_cache_needs_no_net(cache: Path) -> None:
    snapshot = fill_cache(cache, "me/cats", MODEL)
    assert located("hub:me/cats") == located(f"hub:me/cats@{COMMIT}") == snapshot
    assert name_in_cache(snapshot) == f"hub:me/cats@{COMMIT}"
    assert set(open_checkpoint("hub:me/cats").infos) == set(random_tensors(1))
    vectors = dcmerge.TaskVectors.open("hub:me/cats", {"a": "hub:me/cats@" + COMMIT})
    assert vectors.base is not None and vectors.base.path == snapshot


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": b"{}"},
        {
            "model.safetensors.index.json": json.dumps({"weight_map": {"a": "model-2.safetensors"}}).encode(),
            "model-1.safetensors": WEIGHTS,
        },
    ],
    ids=["settings alone", "a shard is missing"],
)
def test_what_the_cache_has_in_part_counts_as_missing(files: dict[str, bytes], cache: Path) -> None:
    fill_cache(cache, "me/cats", files)
    with pytest.raises(InputError, match="not in the hub's cache") as caught:
        located("hub:me/cats")
    assert caught.value.remedy == "download"


def test_a_link_that_leaves_the_models_part_of_the_cache_is_refused(cache: Path, tmp_path: Path) -> None:
    snapshot, other = fill_cache(cache, "me/cats", MODEL), tmp_path / "secret.json"
    other.write_text("{}")
    (snapshot / "extra.json").symlink_to(other)
    with pytest.raises(InputError, match="a link that leaves the model's part"):
        located("hub:me/cats")


def test_a_path_elsewhere_has_no_name(cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "models--me--cats" / "snapshots" / COMMIT
    copy.mkdir(parents=True)
    assert name_in_cache(copy) is None and name_in_cache(cache / "models--me--cats" / "blobs" / "1") is None


def test_nothing_is_fetched_unasked(hub: Hub) -> None:
    with pytest.raises(InputError, match="downloads are not allowed"):
        located("hub:me/cats")
    assert hub.asked == []


def test_a_model_is_fetched_once(hub: Hub, cache: Path) -> None:
    told: list[tuple[float, str]] = []
    plan = planned_fetch(HubName.of("me/cats"))
    assert plan.nbytes == sum(map(len, MODEL.values())) and plan.commit == COMMIT
    folder = fetched(plan, lambda share, text: told.append((share, text)))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == MODEL
    assert told[-1][0] == pytest.approx(1) and "model.safetensors of me/cats" in told[-1][1]
    asked = list(hub.asked)
    assert located("hub:me/cats", download=True) == folder and hub.asked == asked
    assert cached(HubName.of(f"me/cats@{COMMIT}")) == (folder, COMMIT)


def test_only_weights_settings_and_vocabularies_are_fetched(hub: Hub) -> None:
    others = {
        "modeling.py": b"",
        "pytorch_model.bin": b"",
        "tf_model.h5": b"",
        "cat.png": b"",
        "optimizer.pt": b"",
        "README.md": b"",
    }
    hub.repositories["me/cats"] |= {**others, "unet/config.json": b"{}", "1_Pooling/config.json": b"{}", "merges.txt": b""}
    folder = located("hub:me/cats", download=True)
    names = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert names == {*MODEL, "1_Pooling/config.json", "merges.txt"}


def test_pickles_only_where_there_are_no_safetensors() -> None:
    files = ["pytorch_model.bin", "training_args.bin", "config.json"]
    assert chosen_files(files) == ["config.json", "pytorch_model.bin"]
    assert chosen_files([*files, "model.safetensors"]) == ["config.json", "model.safetensors"]


def test_of_a_model_that_lies_there_twice_one_is_fetched() -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert chosen_files([*shards, "consolidated.safetensors"]) == [shards[2], *shards[:2]]
    assert (
        chosen_files(["adapter_model.safetensors", "adapter_config.json", "model.safetensors"])[-1] == "adapter_model.safetensors"
    )


def test_a_file_or_a_folder_inside() -> None:
    files = ["a/model.safetensors", "a/config.json", "b/x.safetensors", "b/y.safetensors", "b/config.json", "c.safetensors"]
    assert chosen_files(files, "a") == ["a/config.json", "a/model.safetensors"]
    assert chosen_files(files, "b/x.safetensors") == ["b/config.json", "b/x.safetensors"]
    assert {file for file in files if file.endswith("s")} < set(chosen_files(files, whole=True))


def test_a_branch_that_moves_while_it_is_fetched_is_told(hub: Hub) -> None:
    plan = planned_fetch(HubName.of("me/cats"))
    hub.heads["me/cats"] = NEXT
    with pytest.raises(InputError, match="changed on the hub while it was fetched"):
        fetched(plan)


def test_a_fetch_can_be_stopped(hub: Hub) -> None:
    def stop(share: float, text: str) -> None:
        if "safetensors" in text:
            raise Cancelled

    with pytest.raises(Cancelled):
        located("hub:me/cats", download=True, progress=stop)
    assert cached(HubName.of("me/cats")) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [("hub:me/dogs", "has no model me/dogs"), ("hub:me/cats@v9", "no branch, tag or commit v9")],
)
def test_what_the_hub_does_not_have(text: str, told: str, hub: Hub) -> None:
    with pytest.raises(InputError, match=told):
        located(text, download=True)


def test_weights_of_another_library_alone(hub: Hub) -> None:
    hub.repositories["me/cats"] = {"tf_model.h5": b"", "config.json": b"{}"}
    with pytest.raises(InputError, match="holds no weights that can be read"):
        located("hub:me/cats", download=True)


def test_off_the_net(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        located("hub:me/cats", download=True)


def test_a_hub_that_does_not_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="Cannot fetch hub:me/cats@main from the hub"):
        located("hub:me/cats", download=True)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", None)
    with pytest.raises(InputError, match="pip install 'dcmerge\\[hf\\]'"):
        located("hub:me/cats")
    assert name_in_cache(Path("/x/models--me--cats/snapshots") / COMMIT) is None


def test_an_interrupted_fetch_of_several_models_is_not_complete(hub: Hub, cache: Path) -> None:
    """Nothing in the files tells that a second model should be there: the fetch itself remembers."""
    hub.repositories["me/set"] = {"base/model.safetensors": WEIGHTS, "cats/model.safetensors": WEIGHTS}

    def stop(share: float, text: str) -> None:
        if "cats" in text:
            raise Cancelled

    with pytest.raises(Cancelled):
        located("hub:me/set", whole=True, download=True, progress=stop)
    assert cached(HubName.of("me/set"), whole=True) is None
    assert cached(HubName.of("me/set@main/base")) is not None and cached(HubName.of("me/set@main/cats")) is None
    folder = located("hub:me/set", whole=True, download=True)
    assert (folder / "cats" / "model.safetensors").is_file() and cached(HubName.of("me/set"), whole=True) is not None
    assert not list((cache / "models--me--set").glob(".dcmerge*"))


def test_numbered_shards_without_an_index_must_all_be_there(cache: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    fill_cache(cache, "me/cats", {names[0]: WEIGHTS})
    assert cached(HubName.of("me/cats")) is None
    fill_cache(cache, "me/dogs", dict.fromkeys(names, WEIGHTS))
    assert cached(HubName.of("me/dogs")) is not None
