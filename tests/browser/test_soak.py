"""The visitors of ``make soak``: some seconds of them, and how their finding is told."""

from __future__ import annotations

import asyncio

from tools.soak import WARM_SECONDS, Log, rise_of, share_below, soak, told


def test_some_visitors_for_some_seconds(app_url: str) -> None:
    log = asyncio.run(soak(app_url, visitors=2, seconds=5, pause=0.5, group=None))
    assert not log.errors, log.errors
    assert len(log.first) == 2 and log.seen
    assert told(log)[1]


def test_what_is_found_is_told() -> None:
    log = Log(seconds=[1.0] * 19 + [9.0], memory=[(WARM_SECONDS + n, 100 + n) for n in range(9)])
    assert share_below(log.seconds, 0.5) == 1.0 and share_below(log.seconds, 0.95) == 9.0
    assert rise_of(log.memory) > 0.05 and rise_of(log.memory[:2]) == 0.0
    text, well = told(log)
    assert not well and "memory rose by 6%" in text
    log = Log()
    log.saw(1, (2.0, 1.0), ("Mean 5 %",))
    log.saw(2, (2.0, 1.0), ("Mean 5 %",))
    assert not log.errors
    log.saw(3, (2.0, 1.0), ("Mean 6 %",))
    assert len(log.errors) == 1 and "visitor 3" in log.errors[0]
