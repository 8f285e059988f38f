"""Tests of the queue of the server: every item is computed once, in few batches."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.serving.server.batching import Batcher, BusyError


class Recorder:
    """A computation that waits until it is released, and records its batches."""

    def __init__(self):
        self.batches, self.started, self.go = [], threading.Event(), threading.Event()

    def __call__(self, items):
        self.started.set()
        assert self.go.wait(10)
        self.batches.append(list(items))
        if "bad" in items:
            raise ValueError("bad")
        return [f"{item}!" for item in items]


def make(budget=10, max_waiting=100, max_delay=0.0):
    """Return a batcher whose thread is busy with the item `first`, and its recorder."""
    recorder = Recorder()
    batcher = Batcher(recorder, budget=budget, max_waiting=max_waiting, max_delay=max_delay)
    first = batcher.submit("first", cost=1)
    assert recorder.started.wait(10)
    return batcher, recorder, first


@given(st.lists(st.integers(1, 12), max_size=12))
def test_waiting_items_share_batches(costs):
    """Results belong to their items; a batch keeps the budget unless it has a single item."""
    batcher, recorder, first = make(max_waiting=10_000)
    futures = [batcher.submit(place, cost=cost) for place, cost in enumerate(costs)]
    assert batcher.waiting == sum(costs)
    recorder.go.set()
    batcher.close()
    assert first.result() == "first!"
    assert [future.result() for future in futures] == [f"{place}!" for place in range(len(costs))]
    batches = recorder.batches[1:]
    assert [item for batch in batches for item in batch] == list(range(len(costs)))
    sums = [sum(costs[item] for item in batch) for batch in batches]
    assert all(cost <= 10 or len(batch) == 1 for cost, batch in zip(sums, batches, strict=True))
    for cost, following in zip(sums, batches[1:], strict=False):
        assert cost + costs[following[0]] > 10, "the next item would have fitted"


def test_item_fails_alone():
    """An error of a batch belongs to the item that causes it."""
    batcher, recorder, _ = make()
    futures = [batcher.submit(item, cost=1) for item in ("good", "bad", "fine")]
    recorder.go.set()
    batcher.close()
    assert futures[0].result() == "good!"
    assert futures[2].result() == "fine!"
    with pytest.raises(ValueError, match="bad"):
        futures[1].result()


def test_full_queue_refuses():
    """The queue holds at most `max_waiting`, but an empty one takes any item."""
    batcher, recorder, _ = make(max_waiting=5)
    batcher.submit("large", cost=50)
    with pytest.raises(BusyError, match="again later") as raised:
        batcher.submit("more", cost=1)
    assert not raised.value.is_closed
    recorder.go.set()
    batcher.close()
    assert recorder.batches == [["first"], ["large"]]


def test_queue_is_full_at_its_limit():
    """Costs may add up to `max_waiting` exactly."""
    batcher, recorder, _ = make(max_waiting=5)
    batcher.submit("two", cost=2)
    batcher.submit("three", cost=3)
    with pytest.raises(BusyError):
        batcher.submit("one", cost=1)
    recorder.go.set()
    batcher.close()


def test_closed_batcher_finishes():
    """What was accepted is computed; later items are refused."""
    batcher, recorder, first = make()
    second = batcher.submit("second", cost=1)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    recorder.go.set()
    closing.join(10)
    assert (first.result(), second.result()) == ("first!", "second!")
    with pytest.raises(BusyError, match="stopping") as raised:
        batcher.submit("third", cost=1)
    assert raised.value.is_closed


def test_cancelled_item_is_skipped():
    """A request that has gone is not computed."""
    batcher, recorder, _ = make()
    gone = batcher.submit("gone", cost=1)
    assert gone.cancel()
    recorder.go.set()
    batcher.close()
    assert recorder.batches == [["first"]]


@pytest.mark.parametrize("cost", [1, 5])
def test_batch_waits_for_as_many_items_as_the_last(cost):
    """Items that come one by one share a batch, which is complete when its budget is reached."""
    batcher, recorder, _ = make(max_delay=600)
    last = [batcher.submit(f"old {k}", cost=1) for k in range(3)]
    recorder.go.set()
    assert [future.result(10) for future in last] == [f"old {k}!" for k in range(3)]
    n_new = 3 if cost == 1 else 2
    new = [batcher.submit(f"new {k}", cost=cost) for k in range(n_new)]
    assert [future.result(10) for future in new] == [f"new {k}!" for k in range(n_new)]
    batcher.close()
    assert [len(batch) for batch in recorder.batches] == [1, 3, n_new]


def test_single_items_do_not_wait():
    """After a batch of one item, the next item is computed at once."""
    batcher, recorder, first = make(max_delay=600)
    recorder.go.set()
    assert first.result(10) == "first!"
    assert batcher.submit("second", cost=1).result(10) == "second!"
    batcher.close()


def test_wait_ends():
    """An item is computed after the delay although the last batch had more."""
    batcher, recorder, _ = make(max_delay=0.01)
    last = [batcher.submit(k, cost=1) for k in range(3)]
    recorder.go.set()
    assert last[-1].result(10) == "2!"
    assert batcher.submit("alone", cost=1).result(10) == "alone!"
    batcher.close()


def test_closing_ends_the_wait():
    """A closed batcher computes what it has without a delay."""
    batcher, recorder, _ = make(max_delay=600)
    last = [batcher.submit(k, cost=1) for k in range(3)]
    recorder.go.set()
    assert last[-1].result(10) == "2!"
    alone = batcher.submit("alone", cost=1)
    closing = threading.Thread(target=batcher.close, daemon=True)
    closing.start()
    assert alone.result(10) == "alone!"
