"""Copies of a process: the same values as in one, errors as they are, and no copy left behind."""

import multiprocessing
import os
import signal
import threading

import numpy as np
import pytest

from sfumato.execution.copies import in_copies, possible_copies

LARGE = np.arange(300_000.0)


def square(k):
    return os.getpid(), k**2, LARGE[k : k + 100_000] * 2


@pytest.mark.parametrize(("copies", "items"), [(1, 5), (2, 5), (3, 2), (2, 1), (2, 0)])
def test_values_come_in_the_order_of_the_items(copies, items):
    found = in_copies(square, range(items), copies)
    assert [value for _, value, _ in found] == [k**2 for k in range(items)]
    assert all((array == LARGE[k : k + 100_000] * 2).all() for k, (_, _, array) in enumerate(found))
    processes = {pid for pid, _, _ in found}
    assert len(processes) == (min(copies, items) if min(copies, items) > 1 else min(items, 1))
    assert (os.getpid() in processes) == (items > 0 and min(copies, items) < 2)
    assert not multiprocessing.active_children()


def test_the_first_error_is_raised_with_its_words():
    def some(k):
        if k > 1:
            raise ValueError(f"item {k}")
        return k

    for copies in (1, 2, 3):
        with pytest.raises(ValueError, match="item 2"):
            in_copies(some, range(5), copies)
    assert not multiprocessing.active_children()


def test_what_a_killed_copy_leaves_is_done_here():
    here = os.getpid()

    def killed(k):
        if k == 3 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return k, os.getpid() == here

    found = in_copies(killed, range(6), 2)
    assert [k for k, _ in found] == list(range(6))
    assert [k for k, done_here in found if done_here] == [3, 5]


def test_ctrl_c_ends_the_copies(tmp_path):
    def slow(k):
        (tmp_path / str(os.getpid())).touch()
        signal.pause()

    def interrupt():
        while len(list(tmp_path.iterdir())) < 2:
            pass
        signal.raise_signal(signal.SIGINT)

    child = os.fork()
    if child == 0:  # a process of its own, so that only one thread is there when it is copied
        try:
            signal.signal(signal.SIGALRM, lambda *_: interrupt())
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            in_copies(slow, range(2), 2)
        except KeyboardInterrupt:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    for pid in (int(path.name) for path in tmp_path.iterdir()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_process_with_threads_is_not_copied():
    assert possible_copies(1) == 1
    alone = possible_copies(1000)
    assert 1 <= alone <= len(os.sched_getaffinity(0))
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert possible_copies(1000) == 1
    finally:
        done.set()
        thread.join()
