import gc
from collections.abc import Iterator
from weakref import ref

import pytest

from worker.memory import settle_memory


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Held:
    """In a cycle, as a loop's frames are with what they run."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_loaded_is_left_alone_and_freed_once_another_takes_its_place() -> None:
    loaded = Held()
    gone = ref(loaded)
    settle_memory()
    del loaded
    gc.collect()
    assert gone() is not None
    settle_memory()
    assert gone() is None
