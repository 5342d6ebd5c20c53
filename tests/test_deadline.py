import threading
import time

import pytest

from stacknorm.inference.deadline import Deadline, wait_forever


def test_a_call_in_time_gives_its_result_and_its_own_errors() -> None:
    deadline = Deadline(5)
    assert deadline("a", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        deadline("a", lambda: 1 / 0)
    assert wait_forever("a", lambda: 8) == 8


def test_a_timeout_of_the_call_itself_is_not_taken_for_a_late_one() -> None:
    deadline = Deadline(5)

    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        deadline("a", fail)
    assert deadline("a", lambda: 1) == 1


def test_a_late_name_is_busy_until_its_call_ends_and_others_are_not() -> None:
    deadline, gate = Deadline(0.05), threading.Event()
    with pytest.raises(TimeoutError, match=r"took longer than 0\.05 s"):
        deadline("slow", gate.wait)
    with pytest.raises(TimeoutError, match="still busy with an earlier batch"):
        deadline("slow", lambda: 1)
    assert deadline("quick", lambda: 2) == 2
    gate.set()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            assert deadline("slow", lambda: 3) == 3
            break
        except TimeoutError:
            time.sleep(0.01)
    else:
        pytest.fail("it never came back")
