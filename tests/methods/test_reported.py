"""Reported numbers: what they are called, and that no family is mixed up with another."""

from __future__ import annotations

import pytest

from dcmerge.methods.reported import FAMILIES, MODELS, REPORTED, reported

#: The catalogue's slugs, those that are not built in yet included.
SLUGS = {
    "average",
    "task_arithmetic",
    "ties",
    "dare",
    "breadcrumbs",
    "consensus_ta",
    "pcb",
    "emr",
    "model_stock",
    "slerp",
    "karcher",
    "fisher",
    "regmean",
    "tsv_m",
    "iso_c",
    "iso_cts",
    "knots",
    "wudi",
    "dc_merge",
    "lot",
    "cat",
    "opcm",
    "doge",
    "adamerging",
    "concrete",
    "adarank",
    "surgery",
    "intervmerge",
    "robustmerge",
    "rmm",
    "perturb_and_merge",
}


def test_every_number_is_an_accuracy_of_a_known_model_and_family() -> None:
    assert set(REPORTED) <= SLUGS
    for entries in REPORTED.values():
        for entry in entries:
            assert 20 < entry.value < 100 and entry.model in MODELS and entry.tasks in (8, 14, 20)
            assert entry.family in FAMILIES and entry.source
            assert not entry.normalised or "LoRA" in entry.family


def test_no_setting_is_given_twice() -> None:
    for slug, entries in REPORTED.items():
        settings = [(e.model, e.tasks, e.family, e.note, e.normalised) for e in entries]
        assert len(set(settings)) == len(settings), slug


@pytest.mark.parametrize(
    ("slug", "model", "tasks", "family", "value"),
    [
        ("tsv_m", "ViT-B/32", 8, "TALL-masks", 85.9),
        ("tsv_m", "ViT-L/14", 20, "TALL-masks", 87.7),
        ("regmean", "ViT-B/32", 8, "Task Arithmetic", 71.8),
        ("regmean", "ViT-B/32", 8, "FusionBench", 82.4),
        ("iso_cts", "ViT-B/16", 14, "TALL-masks", 86.4),
        ("opcm", "ViT-L/14", 20, "FusionBench", 76.0),
        ("knots", "ViT-L/14", 8, "KnOTS LoRA", 78.2),
    ],
)
def test_samples(slug: str, model: str, tasks: int, family: str, value: float) -> None:
    (found,) = [e.value for e in reported(slug) if (e.model, e.tasks, e.family) == (model, tasks, family)]
    assert found == value


def test_a_method_without_confirmed_numbers_has_none() -> None:
    assert reported("slerp") == ()
