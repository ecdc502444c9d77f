"""The bounded memory of factors and results."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

from dcmerge.errors import InputError
from dcmerge.vectors.cache import Budget, Memo, tensor_bytes


@dataclass
class Pair:
    first: Tensor
    rest: tuple[Tensor, ...]
    name: str = ""


def kilobytes(count: int) -> Tensor:
    return torch.zeros(count * 256)


def test_bytes_of_nested_values() -> None:
    one = torch.zeros(10)
    assert tensor_bytes(one) == 40 and tensor_bytes(one.half()) == 20 and tensor_bytes("text") == 0
    assert tensor_bytes(Pair(one, (one, one))) == 120
    assert tensor_bytes({"a": [one], "b": (one, 3)}) == 80
    assert tensor_bytes(Pair) == 0


def test_a_value_is_computed_once() -> None:
    memo, calls = Memo(), []
    first = memo.get("key", lambda: calls.append(1) or kilobytes(1))
    assert memo.get("key", lambda: pytest.fail("computed again")) is first and calls == [1]


def test_a_value_that_does_not_fit_is_computed_again() -> None:
    memo = Memo()
    memo.get("rank", lambda: 2)
    assert memo.get("rank", lambda: 5, fits=lambda known: known >= 4) == 5
    assert memo.get("rank", lambda: 9, fits=lambda known: known >= 4) == 5


def test_the_least_recently_used_leaves_first() -> None:
    memo = Memo(max_bytes=3 * 1024)
    for key in "abc":
        memo.get(key, lambda: kilobytes(1))
    kept = memo.get("a", lambda: pytest.fail("a has left"))
    memo.get("d", lambda: kilobytes(1))
    assert memo.get("a", lambda: pytest.fail("a has left")) is kept
    again = []
    memo.get("b", lambda: again.append(1) or kilobytes(1))
    assert again == [1]


def test_a_value_above_the_limit_is_returned_and_does_not_stay_for_ever() -> None:
    memo = Memo(max_bytes=1024)
    assert memo.get("large", lambda: kilobytes(9)).numel() == 9 * 256
    memo.get("small", lambda: kilobytes(1))
    again = []
    memo.get("large", lambda: again.append(1) or kilobytes(9))
    assert again == [1]


def test_replacing_a_value_counts_its_bytes_once() -> None:
    memo = Memo(max_bytes=4 * 1024)
    for _ in range(20):
        memo.get("grows", lambda: kilobytes(2), fits=lambda known: False)
    memo.get("other", lambda: kilobytes(1))
    memo.get("grows", lambda: pytest.fail("left although everything fits"))


def test_a_computation_that_fails_leaves_nothing() -> None:
    memo = Memo()
    with pytest.raises(RuntimeError):
        memo.get("key", lambda: (_ for _ in ()).throw(RuntimeError()))
    assert memo.get("key", lambda: 1) == 1


def test_threads_share_one_memory() -> None:
    memo = Memo(max_bytes=8 * 1024)
    wrong: list[int] = []

    def work() -> None:
        for step in range(200):
            value = memo.get(step % 16, partial(torch.full, (256,), float(step % 16)))
            if value[0] != step % 16:
                wrong.append(step)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def walk(memo: Memo, keys: str, worth: int = 1) -> str:
    """Which keys had to be computed."""
    missed: list[str] = []
    for key in keys:
        memo.get(key, lambda key=key: missed.append(key) or kilobytes(1), worth=worth)
    return "".join(missed)


def test_walking_a_set_that_does_not_fit_in_order_keeps_most_of_it() -> None:
    memo = Memo(max_bytes=8 * 1024)
    assert walk(memo, "abcdefghij") == "abcdefghij"
    walk(memo, "abcdefghij")
    assert max(len(walk(memo, "abcdefghij")) for _ in range(10)) <= 3


def test_another_set_takes_the_place_of_one_that_nobody_asks_for() -> None:
    memo = Memo(max_bytes=4 * 1024)
    for _ in range(3):
        walk(memo, "abcde")
    for _ in range(20):
        walk(memo, "vwxyz")
    assert len(walk(memo, "vwxyz")) <= 2


def test_what_is_worth_less_leaves_first() -> None:
    memo = Memo(max_bytes=4 * 1024)
    walk(memo, "ab")
    walk(memo, "xy", worth=0)
    assert walk(memo, "cd") == "cd" and walk(memo, "abcd") == ""


def test_without_a_bound_half_of_the_free_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 2 << 30
    monkeypatch.delenv("DCMERGE_MEMORY_BYTES", raising=False)
    memo = Memo(budget=Budget())
    monkeypatch.setattr("dcmerge.vectors.cache.memory.free_memory", lambda: free - memo.held)
    quarter = torch.empty(1, dtype=torch.uint8).expand(free // 4)  # nothing as large is allocated
    for key in "abc":
        memo.get(key, lambda: quarter)
    assert memo.held == free // 2
    with memo.within(free // 4):
        memo.get("d", lambda: quarter)
        assert memo.held == free // 4


def test_sets_share_one_bound() -> None:
    budget = Budget(max_bytes=6 * 1024)
    one, other = Memo(budget=budget), Memo(budget=budget)
    walk(one, "abcd")
    walk(other, "abcd")
    assert budget.held == one.held + other.held == 6 * 1024 and other.held == 4 * 1024
    for _ in range(6):
        walk(one, "abcd")
        walk(other, "abcd")
    assert budget.held == 6 * 1024
    assert max(len(walk(one, "abcd")) + len(walk(other, "abcd")) for _ in range(6)) <= 4, "half of both stays"


def test_a_memory_with_a_bound_of_its_own_takes_no_room_of_others() -> None:
    budget = Budget(max_bytes=6 * 1024)
    one, bounded = Memo(budget=budget), Memo(2 * 1024, budget=budget)
    walk(one, "abcd")
    walk(bounded, "abcdefgh")
    assert bounded.held == 2 * 1024 and walk(one, "abcd") == ""


def test_at_most_so_many_values_are_kept_however_small() -> None:
    memo = Memo(most=2)
    walk(memo, "abc")
    assert walk(memo, "bc") == "" and walk(memo, "a") == "a"


def test_a_set_that_nobody_asks_for_leaves_first_whatever_it_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("dcmerge.vectors.cache.memory.time.monotonic", lambda: now)
    budget = Budget(max_bytes=4 * 1024)
    old, new = Memo(budget=budget), Memo(budget=budget)
    walk(old, "ab", worth=5)
    now = 1000.0
    walk(new, "abcd", worth=0)
    assert old.held == 0 and walk(new, "abcd", worth=0) == ""


def test_what_a_closed_set_held_is_free_again() -> None:
    budget = Budget(max_bytes=4 * 1024)
    memo = Memo(budget=budget)
    walk(memo, "ab")
    assert budget.held == 2 * 1024
    del memo
    assert budget.held == 0


def test_the_bound_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCMERGE_MEMORY_BYTES", "2048")
    memo = Memo(budget=Budget())
    walk(memo, "abcd")
    assert memo.held == 2048
    monkeypatch.setenv("DCMERGE_MEMORY_BYTES", "much")
    with pytest.raises(InputError, match="DCMERGE_MEMORY_BYTES: expected a number of bytes, got 'much'"):
        memo.get("e", lambda: kilobytes(1))


def test_who_asks_for_what_is_computed_already_waits_for_it() -> None:
    memo, begun, go = Memo(), threading.Event(), threading.Event()
    calls: list[str] = []

    def slowly() -> int:
        calls.append("computed")
        begun.set()
        go.wait(10)
        return 7

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(memo.get("key", slowly))) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait(10)
    go.set()
    for thread in threads:
        thread.join()
    assert found == [7, 7, 7] and calls == ["computed"]
