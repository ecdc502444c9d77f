"""The zoo's build on tiny random pools, a few steps, no network: the files must follow the documented formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

pytest.importorskip("peft", reason="the build needs peft (requirements-zoo.txt)")
open_clip = pytest.importorskip("open_clip")

from dcmerge.zoo import edition  # noqa: E402
from dcmerge.zoo.build import finetune, mix, pack, pools, pretrain  # noqa: E402
from dcmerge.zoo.build.model import CONFIG, new_model, normalise  # noqa: E402
from dcmerge.zoo.build.pretrain import Schedule, contrastive_loss  # noqa: E402
from dcmerge.zoo.build.profile import Profile  # noqa: E402
from dcmerge.zoo.build.tasks import BY_NAME, TASKS  # noqa: E402

NAMES = ["mnist", "emoji"]
FEW = Profile("tiny", 12, Schedule(2, 1e-3, 8, 1), Schedule(2, 1e-3, 4, 1), Schedule(2, 1e-2, 4, 1))


def random_pools(work: Path) -> None:
    """Pools of random pixels for two tasks and the base's mix."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        classes = len(BY_NAME[name].classes)
        parts = {
            part: (rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), np.arange(n) % classes)
            for part, n in (("train", 12), ("val", 7), ("test", 45))
        }
        pools.save(work / "pools" / f"{name}.npz", parts)
    np.savez(
        work / "pools" / "base.npz",
        images=rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8),
        kinds=np.arange(20) % 4,
        concepts=np.arange(20) % 6,
        names=np.array(list("abcdef")),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(work, out) of a two-step build of two tasks."""
    work = tmp_path_factory.mktemp("work")
    run, out = work / "tiny", work / "data"
    random_pools(work)
    with pytest.MonkeyPatch.context() as patch:
        chosen = [BY_NAME[name] for name in NAMES]
        patch.setattr(pretrain, "TASKS", chosen)
        patch.setattr(pack, "TASKS", chosen)
        pretrain.train_base(work, run, FEW.base, seed=0, report_every=1)
        for name in NAMES:
            finetune.train_expert(work, run, name, FEW.expert, seed=0)
            finetune.train_lora(work, run, name, FEW.lora, seed=0)
        pack.pack(work, run, out, FEW)
    return work, out


def test_models_have_open_clips_names_in_half_precision(built: tuple[Path, Path]) -> None:
    _, out = built
    config = json.loads((out / "model.json").read_text())
    assert set(config["preprocess"]) == {"mean", "std"}
    model = open_clip.CLIP(**{k: v for k, v in config.items() if k not in {"preprocess", "logit_scale"}})
    expected = {name: value.shape for name, value in model.state_dict().items() if name.startswith("visual.")}
    for file in [out / "base.safetensors", *(out / "experts" / f"{name}.safetensors" for name in NAMES)]:
        state = load_file(file)
        assert {name: value.shape for name, value in state.items()} == expected
        assert all(value.dtype == torch.float16 and bool(torch.isfinite(value).all()) for value in state.values())


def test_experts_differ_from_the_base_and_from_each_other(built: tuple[Path, Path]) -> None:
    _, out = built
    name = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    base, *experts = [
        load_file(f)[name] for f in [out / "base.safetensors", *(out / "experts" / f"{n}.safetensors" for n in NAMES)]
    ]
    assert not torch.equal(base, experts[0]) and not torch.equal(experts[0], experts[1])


def test_adapters_are_pefts_and_adapt_attention_and_mlp(built: tuple[Path, Path]) -> None:
    _, out = built
    adapter = load_file(out / "lora" / "mnist" / "adapter_model.safetensors")
    block = "base_model.model.visual.transformer.resblocks.0"
    width = CONFIG["vision_cfg"]["width"]
    assert adapter[f"{block}.attn.lora_A.weight"].shape == (16, width)
    assert adapter[f"{block}.attn.lora_B.weight"].shape == (3 * width, 16)
    assert adapter[f"{block}.attn.base_layer.out_proj.lora_A.weight"].shape == (16, width)
    assert adapter[f"{block}.mlp.c_fc.lora_B.weight"].shape == (4 * width, 16)
    config = json.loads((out / "lora" / "mnist" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["bias"]) == (16, 16, "none")


def test_images_labels_and_heads_fit_together(built: tuple[Path, Path]) -> None:
    work, out = built
    labels, heads = load_file(out / "labels.safetensors"), load_file(out / "heads.safetensors")
    for task in json.loads((out / "tasks.json").read_text()):
        assert {"title", "description", "source", "licence", "split_rule"} <= set(task)
        head = heads[task["name"]]
        assert head.shape == (len(task["classes"]), CONFIG["embed_dim"]) and head.dtype == torch.float32
        torch.testing.assert_close(head.norm(dim=1), torch.ones(len(head)))
        for split, count in task["splits"].items():
            images, target = pools.load(work, task["name"], split)
            assert count == len(target) and labels[f"{task['name']}_{split}"].tolist() == target.tolist()
            picture = np.asarray(Image.open(out / "images" / f"{task['name']}_{split}.webp").convert("RGB"))
            columns = picture.shape[1] // 32
            for i in (0, count - 1):
                row, column = divmod(i, columns)
                assert (picture[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] == images[i]).all()


def test_facts_report_accuracies_and_relative_norm(built: tuple[Path, Path]) -> None:
    _, out = built
    facts = json.loads((out / "facts.json").read_text())
    assert facts["base"]["steps"] == 2
    for name in NAMES:
        task = facts["tasks"][name]
        assert all(0 <= task[kind][split] <= 1 for kind in ("zero_shot", "expert", "lora") for split in ("val", "test"))
        assert task["expert_training"]["relative_norm"] > 0
    assert facts["edition"] == edition(out)


def test_the_base_says_its_logit_scale_and_how_well_it_is_calibrated(built: tuple[Path, Path]) -> None:
    work, out = built
    learned = float(load_file(work / "tiny" / "base.safetensors")["logit_scale"].exp())
    kept = json.loads((out / "facts.json").read_text())["base"]["calibration"]
    assert kept["learned"] == pytest.approx(learned, abs=1e-3) and kept["proxies"] == pretrain.PROXY_SCALE
    errors = {scale: kept["validation"][f"{scale:g}"]["ece"] for scale in (kept["learned"], kept["proxies"])}
    assert kept["logit_scale"] == min(errors, key=errors.get)
    assert json.loads((out / "model.json").read_text())["logit_scale"] == kept["logit_scale"]


def test_fine_tuning_follows_the_logit_scale_that_it_is_given() -> None:
    images, labels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), np.arange(8) % 2
    head, ends = torch.eye(2, CONFIG["embed_dim"]), []
    for scale in (5.0, 5.0, 50.0):
        tower = finetune.ImageTower(new_model(0).visual)
        finetune.fit(tower, head, images, labels, Schedule(2, 1e-3, 4, 1), np.random.default_rng(0), scale)
        ends.append(tower.visual.proj.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)
    assert not torch.equal(ends[0], ends[2])


def test_an_emojis_class_is_known_under_other_vendors_names() -> None:
    assert [mix.emoji_class(words) for words in ("cactus 2", "bear face", "heart suit", "tooth")] == [
        "cactus",
        "bear",
        "red heart",
        "tooth",
    ]


def test_an_interrupted_base_goes_on_where_it_was(built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    work, _ = built
    run = work / "again"
    monkeypatch.setattr(pretrain, "TASKS", [BY_NAME["mnist"]])
    monkeypatch.setattr(pretrain, "contrastive_loss", stop_after(1, pretrain.contrastive_loss))
    with pytest.raises(KeyboardInterrupt):
        pretrain.train_base(work, run, FEW.base, seed=0, report_every=1)
    with safe_open(run / "base-part.safetensors", framework="pt") as part:
        assert part.metadata()["step"] == "1"
    pretrain.train_base(work, run, FEW.base, seed=0, report_every=1)
    assert (run / "base.safetensors").exists()


def stop_after(count: int, function):
    """Let the function be called `count` times, interrupt one call, then let it run again."""
    calls = 0

    def wrapped(*arguments):
        nonlocal calls
        calls += 1
        if calls == count + 1:
            raise KeyboardInterrupt
        return function(*arguments)

    return wrapped


def test_the_rate_warms_up_follows_a_cosine_and_cools_down_to_zero() -> None:
    whole = Schedule(10, 1.0, 4, 2)
    assert [whole.rate(step) for step in (0, 1, 2, 6)] == pytest.approx([0.5, 1, 1, 0.5])
    cut = Schedule(8, 1.0, 4, 2, horizon=10, cooldown=2)
    assert [cut.rate(step) for step in range(6)] == [whole.rate(step) for step in range(6)]
    assert [cut.rate(step) for step in (6, 7)] == pytest.approx([0.5, 0.25])


def test_repeated_concepts_are_positives_of_each_other() -> None:
    """Two equal pairs and one other: the loss is lowest, log 2 a row, when the equal ones coincide."""
    feature = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    concepts = torch.tensor([4, 4, 9])
    loss = contrastive_loss(feature, feature, concepts, torch.tensor(50.0))
    assert float(loss) == pytest.approx(2 * np.log(2) / 3, abs=1e-4)


def test_stratified_parts_are_disjoint_and_balanced() -> None:
    labels = np.repeat(np.arange(5), 40)
    parts = pools.stratified(labels, [50, 100], np.random.default_rng(0))
    assert len(set(parts[0]) & set(parts[1])) == 0
    assert [np.bincount(labels[i]).tolist() for i in parts] == [[10] * 5, [20] * 5]


def test_not_finite_weights_are_never_packed() -> None:
    with pytest.raises(ValueError, match="visual.proj"):
        pack.half({"visual.proj": torch.tensor([1e9])})


def test_normalise_maps_middle_grey_to_about_zero() -> None:
    assert float(normalise(np.full((1, 32, 32, 3), 128, np.uint8)).abs().max()) < 0.01


def test_the_eight_tasks_and_the_models_size() -> None:
    assert [t.name for t in TASKS] == ["mnist", "fashion", "street", "letters", "kana", "emoji", "flags", "textures"]
    size = 2 * sum(p.numel() for p in new_model(0).visual.parameters())
    assert 8.0e6 < size < 8.4e6
