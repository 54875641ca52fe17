import threading
from queue import SimpleQueue

from exoflow.executors.threads import Deadlines, Threads

WAIT_S = 30


def counted(limit):
    """Threads that say who served what, and wait where they are told to."""
    served = SimpleQueue()
    gate = threading.Event()

    def serve(take):
        while (item := take()) is not None:
            served.put((item, threading.current_thread().name))
            if item == "wait":
                gate.wait(WAIT_S)

    return Threads(limit, serve, "test"), served, gate


def test_one_idle_thread_serves_one_item_after_another():
    threads, served, _ = counted(4)
    names = set()
    for number in range(100):
        threads.put(number + 1)
        item, name = served.get(timeout=WAIT_S)
        assert item == number + 1
        names.add(name)
    assert len(names) <= 4
    threads.close()
    threads.join(WAIT_S)


def test_no_item_waits_for_a_busy_thread_while_another_may_start():
    threads, served, gate = counted(8)
    for _ in range(8):
        threads.put("wait")
    names = {served.get(timeout=WAIT_S)[1] for _ in range(8)}
    assert len(names) == 8
    threads.put("ninth")
    assert served.empty()
    gate.set()
    assert served.get(timeout=WAIT_S)[0] == "ninth"
    threads.close()
    threads.join(WAIT_S)


def test_a_thread_that_was_given_up_is_replaced():
    threads, served, gate = counted(1)
    threads.put("wait")
    served.get(timeout=WAIT_S)
    threads.put("next")
    threads.replace_one()
    assert served.get(timeout=WAIT_S) == ("next", "test-2")
    gate.set()
    threads.close()
    threads.join(WAIT_S)


def test_all_threads_end_after_close_and_none_starts():
    threads, served, _ = counted(3)
    threads.put("a")
    served.get(timeout=WAIT_S)
    threads.close()
    threads.join(WAIT_S)
    threads.put("b")
    assert not any(thread.name.startswith("test-") for thread in threading.enumerate())


def test_deadlines_expire_in_order_and_only_what_is_alive():
    expired = SimpleQueue()
    alive = {"late", "soon"}
    deadlines = Deadlines(expired.put, alive.__contains__, "test-deadlines")
    deadlines.add(0.05, "late")
    deadlines.add(0.02, "dead")
    deadlines.add(0.01, "soon")
    assert [expired.get(timeout=WAIT_S) for _ in range(2)] == ["soon", "late"]
    deadlines.close()


def test_what_has_ended_does_not_pile_up_until_its_deadline():
    alive = set()
    deadlines = Deadlines(lambda item: None, alive.__contains__, "test-deadlines")
    alive.add(-1)
    deadlines.add(3600, -1)
    for number in range(10_000):
        deadlines.add(3600, number)
    assert len(deadlines._heap) <= 70
    assert any(item == -1 for _, _, item in deadlines._heap)
    deadlines.close()


def test_what_a_thread_puts_while_it_ends_an_item_overtakes_nothing():
    order = []
    begun, gate, done = threading.Event(), threading.Event(), threading.Event()

    def serve(take):
        while (item := take()) is not None:
            order.append(item)
            if item == 0:
                begun.set()
                gate.wait(WAIT_S)
            if item == 3:
                done.set()
            elif item != "other":
                with threads.spare():
                    threads.put(item + 1)

    threads = Threads(1, serve, "test")
    threads.put(0)
    assert begun.wait(WAIT_S)
    threads.put("other")
    gate.set()
    assert done.wait(WAIT_S)
    assert order == [0, "other", 1, 2, 3]
    threads.close()
    threads.join(WAIT_S)
