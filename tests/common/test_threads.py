"""Calls in Python's threads: their order, how many there are, and what ends them."""

import threading
import time

import pytest

from embgeom._common.threads import in_threads, keep_going


def test_results_come_in_the_order_of_items_and_are_reported():
    reports = []

    def slow(item):
        time.sleep(0.02 * (3 - item))
        return item

    for threads in (1, 4):
        assert in_threads(slow, range(4), threads, lambda *report: reports.append(report)) == [0, 1, 2, 3]
    assert reports == 2 * [("measures", done, 4) for done in (1, 2, 3, 4)]
    assert in_threads(slow, [], 4) == []


def test_calls_within_one_another_start_no_more_threads_than_one():
    """OpenBLAS ends the process where more than sixteen threads of NumPy's call it."""
    lock, now, most = threading.Lock(), 0, 0

    def inner(_):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    in_threads(lambda _: in_threads(inner, range(40), 64), range(3), 64)
    assert most == 3 * (16 // 3)


def test_an_interrupt_ends_calls_that_wait_and_those_that_ask():
    begun, running, asked = [], threading.Event(), threading.Event()

    def call(item):
        begun.append(item)
        if item == 0:
            running.wait(60)
            raise KeyboardInterrupt
        running.set()
        for _ in range(1000):
            time.sleep(0.01)
            try:
                keep_going()
            except KeyboardInterrupt:
                asked.set()
                raise

    with pytest.raises(KeyboardInterrupt):
        in_threads(lambda item: in_threads(call, [item, item + 1], 2), [0, 10, 20, 30], 2)
    assert asked.is_set() and max(begun) < 20
    keep_going()  # nothing is left of it


def test_an_interrupt_ends_items_that_one_thread_takes_in_turn():
    begun, first = [], threading.Event()

    def one_by_one(item):
        begun.append(item)
        first.set()
        time.sleep(0.02)

    def call(item):
        if item == 0:
            assert first.wait(60)
            raise KeyboardInterrupt
        in_threads(one_by_one, range(1000), 1)

    with pytest.raises(KeyboardInterrupt):
        in_threads(call, [0, 1], 2)
    assert len(begun) < 1000


def test_an_error_is_the_one_of_the_first_item_that_fails():
    def call(item):
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        in_threads(call, range(5), 2)
