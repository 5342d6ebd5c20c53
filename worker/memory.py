"""How garbage is collected in a process that lives long."""

import gc
from typing import Final

ALLOCATIONS_A_COLLECTION: Final = 50_000
"""Records and events come in thousands and go by their reference counts; CPython's default is 700."""


def settle_memory() -> None:
    """Leave what is loaded to itself, until this is called again; garbage among what was left so is collected then.

    Collecting garbage among torch's million objects holds up all heartbeats, and a detector's state lives as long as
    it does.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS_A_COLLECTION)
