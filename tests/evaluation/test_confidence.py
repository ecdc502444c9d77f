"""Confidence, calibration error and the best scale, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dcmerge.evaluation.confidence import best_scale, calibration_error, confidence_of, mean_entropy

LABELS = torch.tensor([0, 0, 0, 1])


def answers(gap: float) -> torch.Tensor:
    """Two classes; class 0 leads by ``gap`` for every image, so that three of four answers are right."""
    return torch.tensor([[gap, 0.0]]).expand(4, 2)


def test_the_best_scale_is_as_sure_as_it_is_right() -> None:
    """σ(s · gap) = 3/4 at s = ln 3 / gap, where the log loss is least."""
    found = confidence_of(answers(0.1), LABELS, 100.0)
    assert found.best_scale == pytest.approx(10 * math.log(3), rel=1e-6)
    assert found.accuracy == 0.75 and found.mean == pytest.approx(1 / (1 + math.exp(-10)))
    assert found.error == pytest.approx(found.mean - 0.75)
    assert confidence_of(answers(0.1), LABELS, found.best_scale).error == pytest.approx(0, abs=1e-6)


def test_the_best_scale_stays_in_its_range() -> None:
    assert best_scale([(answers(0.1), torch.zeros(4, dtype=torch.long))]) == pytest.approx(1000, rel=1e-3)
    assert best_scale([(answers(0.1), torch.ones(4, dtype=torch.long))]) == pytest.approx(0.1, rel=1e-3)


def test_tasks_count_alike_whatever_their_size() -> None:
    right = (answers(0.1)[:1], torch.tensor([0]))
    wrong = (answers(0.1)[:1].expand(9, 2), torch.ones(9, dtype=torch.long))
    thirds = (answers(0.1)[:3], torch.tensor([0, 0, 1]))
    assert best_scale([right, right, wrong]) == pytest.approx(best_scale([thirds]), rel=1e-6)


def test_calibration_error_by_hand() -> None:
    """Bins of a half: 0.2 and 0.4 share one (accuracy 0.5), 0.9 is alone and wrong; 0 and 1 belong to the outer bins."""
    sure, hits = torch.tensor([0.2, 0.4, 0.9]), torch.tensor([True, False, False])
    assert calibration_error(sure, hits, bins=2) == pytest.approx((2 * abs(0.5 - 0.3) + 0.9) / 3, abs=1e-6)
    assert calibration_error(torch.tensor([0.0, 1.0]), torch.tensor([False, True])) == 0


def test_entropy_in_nats() -> None:
    assert mean_entropy(torch.zeros(3, 5), 20.0) == pytest.approx(math.log(5))
    assert mean_entropy(answers(1.0), 1000.0) == pytest.approx(0, abs=1e-9)
