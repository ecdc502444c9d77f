"""Will it merge? Chance by drawing, constructed pairs by name, adapters by their factors, and the demo's facts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank
from dcmerge.errors import Cancelled, InputError
from dcmerge.spectral.alignment import chance_overlap, gram
from dcmerge.studies.small_sets import full_set, lora_set, random_factors, random_tensors
from dcmerge.studies.verdict import CONFLICT, DEAD, DROWNS, DUPLICATE, INDEPENDENT, REINFORCING, Verdict, verdict
from dcmerge.studies.verdict.tables import WHOLE, as_csv, part_rows, rows, to_data
from dcmerge.studies.verdict.text import DEMO_OVERLAP
from dcmerge.vectors.layers import layer_of
from dcmerge.zoo import open_zoo

#: Two blocks of a model: wide, tall and square matrices, and a vector.
SHAPES = {
    "visual.transformer.resblocks.0.attn.out_proj.weight": (64, 64),
    "visual.transformer.resblocks.0.ln_1.bias": (64,),
    "visual.transformer.resblocks.1.mlp.c_fc.weight": (96, 64),
    "visual.transformer.resblocks.1.mlp.c_proj.weight": (64, 96),
}
SQUARE = next(iter(SHAPES))


def random_bases(seed: int, m: int, n: int, r: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.linalg.qr(torch.randn(size, r, generator=generator)).Q for size in (m, n))  # type: ignore[return-value]


def of_pair(folder: Path, a: dict[str, Tensor], b: dict[str, Tensor]) -> Verdict:
    return verdict(full_set(folder, {"a": a, "b": b}))


@pytest.mark.parametrize(("p", "q", "d"), [(1, 1, 12), (3, 5, 20), (8, 4, 10), (6, 6, 7)])
def test_what_chance_gives_is_what_drawing_gives(p: int, q: int, d: int) -> None:
    generator = torch.Generator().manual_seed(0)
    B = torch.linalg.qr(torch.randn(d, q, generator=generator, dtype=torch.float64)).Q
    A = torch.linalg.qr(torch.randn(20_000, d, p, generator=generator, dtype=torch.float64)).Q
    drawn = (A.mT @ B).square().sum(dim=(1, 2))
    mean, variance = chance_overlap(p, q, d)
    assert drawn.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / len(drawn)))
    assert drawn.var().item() == pytest.approx(variance, rel=0.06)


def test_whole_subspaces_leave_nothing_to_chance() -> None:
    assert chance_overlap(5, 9, 9) == (5.0, 0.0) and chance_overlap(1, 1, 1) == (1.0, 0.0)


def test_facts_of_a_pair_are_what_a_few_lines_find(tmp_path: Path) -> None:
    a, b = random_tensors(1, SHAPES), random_tensors(2, SHAPES)
    b = {name: value + 0.3 * a[name] for name, value in b.items()}
    found = of_pair(tmp_path, a, b).pair("b", "a")
    x, y = (torch.cat([one[name].flatten() for name in SHAPES]).double() for one in (a, b))
    assert found.whole.cosine == pytest.approx((x @ y / (x.norm() * y.norm())).item(), rel=1e-5)
    assert found.whole.norms == pytest.approx((x.norm().item(), y.norm().item()), rel=1e-5)
    weights = (x * y).abs()
    assert found.whole.conflict == pytest.approx((weights[x * y < 0].sum() / weights.sum()).item(), rel=1e-5)
    U, s, Vt = torch.linalg.svd(a[SQUARE].double())
    W, z, Zt = torch.linalg.svd(b[SQUARE].double())
    p, q = (int((one.square().cumsum(0) < 0.5 * one.square().sum()).sum()) + 1 for one in (s, z))
    block = found.parts["block 0"]
    outputs, inputs = ((one.square().sum() / (p * q / 64)).item() for one in (U[:, :p].T @ W[:, :q], Vt[:p] @ Zt[:q].T))
    assert (block.outputs, block.inputs) == pytest.approx((outputs, inputs), rel=1e-4)
    assert block.overlap == pytest.approx((outputs + inputs) / 2, rel=1e-4)
    assert block.concentration[0] == pytest.approx((s[0] ** 2 / s.square().sum()).item(), rel=1e-4)


def test_signs_have_their_own_baseline(tmp_path: Path) -> None:
    """Shuffling one expert's entries makes what the baseline says; experts that only grow entries never conflict."""
    a, b = (random_tensors(seed, SHAPES) for seed in (1, 2))
    skewed = [{name: value + 0.8 for name, value in one.items()} for one in (a, b)]
    found = of_pair(tmp_path / "skewed", *skewed).pairs[0].parts["block 0"]
    x, y = (torch.cat([one[name].flatten() for name in list(SHAPES)[:1]]).double() for one in skewed)
    generator = torch.Generator().manual_seed(0)
    shuffled = [x * y[torch.randperm(len(y), generator=generator)] for _ in range(60)]
    conflict = torch.stack([-product.clamp_max(0).sum() / product.abs().sum() for product in shuffled]).mean().item()
    assert found.conflict_by_chance == pytest.approx(conflict, abs=0.005) and conflict < 0.4
    grown = [{name: value.abs() for name, value in one.items()} for one in (a, b)]
    facts = of_pair(tmp_path / "grown", *grown).pairs[0].whole
    assert facts.conflict == pytest.approx(0, abs=1e-9) and facts.conflict_by_chance == 0


def test_constructed_pairs_are_named_rightly(tmp_path: Path) -> None:
    a, other = random_tensors(1, SHAPES), random_tensors(2, SHAPES)
    made = {
        "identical": ({n: v.clone() for n, v in a.items()}, DUPLICATE),
        "longer copy": ({n: 2.5 * v for n, v in a.items()}, DUPLICATE),
        "negated": ({n: -v for n, v in a.items()}, CONFLICT),
        "orthogonal": (other, INDEPENDENT),
        "alike in part": ({n: 0.3 * a[n] + v for n, v in other.items()}, REINFORCING),
        "four times as long": ({n: 4 * v for n, v in other.items()}, DROWNS),
        "nothing": ({n: torch.zeros_like(v) for n, v in a.items()}, DEAD),
        "hardly anything": ({n: 1e-4 * v for n, v in other.items()}, DEAD),
    }
    for name, (b, word) in made.items():
        assert of_pair(tmp_path / name, a, b).pairs[0].word == word, name


def test_one_block_negated_by_hand_is_found_there(tmp_path: Path) -> None:
    a = random_tensors(1, SHAPES)
    b = {name: value if "resblocks.0" in name else -0.7 * value for name, value in a.items()}
    found = of_pair(tmp_path, a, b).pairs[0]
    assert found.word == CONFLICT
    assert dict(found.part_words) == {"block 0": DUPLICATE, "block 1": CONFLICT}


def test_the_same_directions_with_other_values(tmp_path: Path) -> None:
    """Values of other sizes push the same way; values whose signs differ fill the same directions with different things."""
    U, V = random_bases(3, 64, 64, 8)
    first, second = (torch.rand(8, generator=torch.Generator().manual_seed(seed)) + 0.5 for seed in (4, 5))
    signs = torch.tensor([1, -1, 1, -1, 1, -1, 1, -1])
    balanced = second.clone()
    balanced[-1] *= (first * second * signs)[:-1].sum() / (first * second)[-1]  # makes the cosine 0
    shared = of_pair(tmp_path / "alike", {"w.weight": U * first @ V.T}, {"w.weight": U * second @ V.T})
    crossed = of_pair(tmp_path / "crossed", {"w.weight": U * first @ V.T}, {"w.weight": U * (signs * balanced) @ V.T})
    assert shared.pairs[0].word in (REINFORCING, DUPLICATE)
    assert abs(crossed.pairs[0].whole.cosine) < 1e-5
    assert crossed.pairs[0].word == CONFLICT and "of the main directions shared" in crossed.pairs[0].reason


def test_a_spike_of_rank_one_is_seen(tmp_path: Path) -> None:
    noise = [random_tensors(seed, {"w.weight": (64, 64)})["w.weight"] for seed in (1, 2)]
    spikes = [
        40 * torch.outer(*(torch.nn.functional.normalize(x[0], dim=0), torch.nn.functional.normalize(x[1], dim=0))) for x in noise
    ]
    plain = of_pair(tmp_path / "plain", *({"w.weight": one} for one in noise))
    spiked = of_pair(tmp_path / "own", *({"w.weight": 0.1 * n + s} for n, s in zip(noise, spikes, strict=True)))
    common = of_pair(tmp_path / "common", *({"w.weight": 0.1 * n + spikes[0]} for n in noise))
    assert max(plain.pairs[0].whole.concentration) < 0.1 < 0.9 < min(spiked.pairs[0].whole.concentration)
    assert (spiked.pairs[0].word, common.pairs[0].word) == (INDEPENDENT, DUPLICATE)
    assert "spike of rank one" in spiked.text and "spike" not in plain.text


def test_the_mean_holds_what_all_have_in_common(tmp_path: Path) -> None:
    tasks = {f"t{seed}": random_tensors(seed, SHAPES) for seed in range(3)}
    rows = torch.stack([torch.cat([one[name].flatten() for name in SHAPES]).double() for one in tasks.values()])
    found = verdict(full_set(tmp_path, tasks))
    share = 3 * rows.mean(dim=0).square().sum() / rows.square().sum()
    assert found.facts.mean_share == pytest.approx(share.item(), rel=1e-5) and found.facts.mean_share_apart == pytest.approx(
        1 / 3
    )
    assert found.facts.cosine == pytest.approx(sum(one.whole.cosine for one in found.pairs) / 3)


def test_adapters_stay_factors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"attn.q_proj.weight": (1200, 900), "mlp.fc1.weight": (900, 1400)}
    factors = {f"t{seed}": random_factors(seed, 2, shapes) for seed in (1, 2)}
    factors["negated"] = {name: (-B, A) for name, (B, A) in factors["t1"].items()}
    vectors = lora_set(tmp_path, factors)
    dense = {t: torch.cat([(B @ A).flatten() for B, A in own.values()]).double() for t, own in factors.items()}
    whole = LowRank.dense

    def some_rows(self: LowRank) -> Tensor:
        assert self.shape[0] < 400, "a dense product"
        return whole(self)

    monkeypatch.setattr(LowRank, "dense", some_rows)
    found = verdict(vectors)
    apart = found.pair("t1", "t2")
    assert apart.whole.cosine == pytest.approx(torch.cosine_similarity(dense["t1"], dense["t2"], dim=0).item(), abs=1e-5)
    product = dense["t1"] * dense["t2"]
    assert apart.whole.conflict == pytest.approx((-product.clamp_max(0).sum() / product.abs().sum()).item(), abs=0.02)
    assert found.pair("t1", "negated").word == CONFLICT and apart.word == INDEPENDENT


def test_inner_products_by_factors_are_those_of_the_products(tmp_path: Path) -> None:
    vectors = lora_set(tmp_path, {f"t{seed}": random_factors(seed) for seed in range(3)})
    for name in vectors.parameters:
        rows = layer_of(vectors, name).dense_deltas().flatten(1).double()
        torch.testing.assert_close(gram(vectors.deltas(name)), rows @ rows.T, rtol=1e-5, atol=1e-5)


def test_the_facts_of_the_demo_come_out() -> None:
    found = verdict(open_zoo("demo").vectors)
    assert found.words() == {INDEPENDENT: 25, REINFORCING: 3}
    alike = {frozenset((one.first, one.second)) for one in found.pairs if one.word == REINFORCING}
    assert alike == {frozenset(pair) for pair in (("street", "letters"), ("street", "kana"), ("letters", "kana"))}
    assert found.facts.cosine == pytest.approx(0.039, abs=0.001)
    assert round(found.facts.overlap or 0, 1) == DEMO_OVERLAP
    assert all(one.whole.overlap_beyond_chance for one in found.pairs)
    assert "25 independent" in found.text and "9 to 12 points better than averaging" in found.text


def test_rows_and_data_hold_every_pair_and_part(tmp_path: Path) -> None:
    found = verdict(full_set(tmp_path, {t: random_tensors(seed, SHAPES) for seed, t in enumerate("abc")}), by="matrices")
    assert [row["first"] + row["second"] for row in rows(found)] == ["ab", "ac", "bc"]
    assert {row["part"] for row in part_rows(found)} == {WHOLE, *(name for name, shape in SHAPES.items() if len(shape) > 1)}
    assert as_csv(found).count("\n") == 1 + 3 * (1 + 3)
    data = to_data(found)
    assert data["words"] == found.words() and len(data["parts"]["rows"]) == 9 and data["text"] == found.text


def test_what_no_verdict_can_be_made_of_is_refused(tmp_path: Path) -> None:
    two = full_set(tmp_path, {t: random_tensors(seed, SHAPES) for seed, t in enumerate("ab")})
    with pytest.raises(InputError, match="expected at least two experts"):
        verdict(two.select(["a"]))
    with pytest.raises(InputError, match="by: expected blocks or matrices, got 'rows'"):
        verdict(two, by="rows")
    with pytest.raises(Cancelled):
        verdict(two, cancelled=lambda: True)
