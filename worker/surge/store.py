"""The states of all keys in little memory: those met of late as objects, all others as their changelog records.

Owns how a state is kept and when an idle key is forgotten. Knows nothing of statistics and alerts.
"""

from collections.abc import Iterator
from typing import Final

from mypy_extensions import mypyc_attr

from worker.surge.baseline import DAY_MS
from worker.surge.lifecycle import KeyState, read_key
from worker.surge.rules import Rules
from worker.surge.versions import KEY_PREFIX, Versions

MAX_HOT: Final = 20_000
"""States kept as objects between batches: some 2 kB each, where a record has 200 bytes."""


@mypyc_attr(acyclic=True)
class _Record:
    """The record of a hot state as of the last batch, and what the counters hold of it."""

    __slots__ = ("firing", "value", "young")

    def __init__(self, value: bytes | None, young: bool = False, firing: bool = False) -> None:
        self.value = value
        self.young = young
        self.firing = firing


class Keys:
    """Key names to states. A caller that changes a state says so by sealing it before ``cool``.

    Nothing outside can tell a state that was packed from one that was not: it is what a restart would have read. A key
    that is idle, without a run and an alert, for ``forget_key_days`` is as one never met; ``sweep`` only frees its
    memory. Owned by one thread.
    """

    def __init__(self, rules: Rules, versions: Versions, max_hot: int = MAX_HOT) -> None:
        self._versions = versions
        self._max_hot = max_hot
        self._learning_days = rules.learning_days
        self._forget_ms = round(rules.forget_key_days * DAY_MS)
        self._states: dict[str, KeyState | bytes] = {}
        self._hot: dict[str, _Record] = {}
        self._to_forget: dict[int, list[str]] = {}
        self.young = 0
        self.firing = 0

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    def get(self, name: str) -> KeyState | None:
        """The state of a key, to be changed in place; None where it is unknown."""
        state = self._states.get(name)
        if not isinstance(state, bytes):
            return state
        found = self._states[name] = self._open(name, state)
        self._hot[name] = _Record(state, self._is_young(found), found.firing is not None)
        return found

    def items(self) -> Iterator[tuple[str, KeyState]]:
        """Every state, to be looked at."""
        for name, state in self._states.items():
            yield name, self._open(name, state) if isinstance(state, bytes) else state

    def __setitem__(self, name: str, state: KeyState) -> None:
        if name not in self._states:
            self._hot[name] = _Record(None)
            self._note_expiry(name, state.last_clock_ms)
        elif name not in self._hot:
            self.get(name)
        self._states[name] = state

    def restore(self, name: str, value: bytes) -> KeyState | None:
        """Take over a record; the state is returned where it is not idle."""
        state = self._open(name, value)
        self._states[name] = value
        self._note_expiry(name, state.last_clock_ms)
        self.young += self._is_young(state)
        self.firing += state.firing is not None
        return None if state.is_idle() else state

    def seal(self, name: str) -> bytes | None:
        """The record of a key, None where it is gone."""
        state = self._states.get(name)
        if isinstance(state, bytes):
            return state
        if state is None:
            return None
        record = self._hot.pop(name)
        young, firing = self._is_young(state), state.firing is not None
        self.young += young - record.young
        self.firing += firing - record.firing
        record.young, record.firing = young, firing
        record.value = self._versions.seal(KEY_PREFIX + name, state.fields())
        self._hot[name] = record  # behind all others: met last
        return record.value

    def cool(self) -> None:
        """Keep those met longest ago as their records; every changed state has been sealed."""
        while len(self._hot) > self._max_hot:
            name = next(iter(self._hot))
            value = self._hot.pop(name).value
            assert value is not None, f"key {name} was never sealed"
            self._states[name] = value

    def meet(self, name: str, clock_ms: int) -> KeyState | None:
        """As ``get``, for an event at this clock: None where the key is forgotten by then."""
        state = self.get(name)
        oldest_ms = clock_ms - self._forget_ms
        return state if state is None or state.last_clock_ms >= oldest_ms or not state.is_idle() else None

    def sweep(self, clock_ms: int, most: int) -> Iterator[str]:
        """Drop up to ``most`` of the keys that nothing from this clock on can tell from new ones; their names.

        Every key is looked at once in ``forget_key_days``, on the day on which it would be forgotten.
        """
        for _ in range(most):
            name = self._next_to_forget(clock_ms)
            if name is None:
                return
            state = self._states[name]
            found = self._open(name, state) if isinstance(state, bytes) else state
            assert isinstance(found, KeyState)
            if found.last_clock_ms + self._forget_ms < clock_ms and found.is_idle():
                self._drop(name)
                yield name
            else:
                self._note_expiry(name, max(found.last_clock_ms, clock_ms - self._forget_ms))

    def _drop(self, name: str) -> None:
        self.get(name)
        del self._states[name]
        record = self._hot.pop(name)
        self.young -= record.young
        self.firing -= record.firing

    def _next_to_forget(self, clock_ms: int) -> str | None:
        first_day = min(self._to_forget, default=None)
        if first_day is None or (first_day + 1) * DAY_MS > clock_ms:
            return None
        names = self._to_forget[first_day]
        name = names.pop()
        if not names:
            del self._to_forget[first_day]
        return name

    def _note_expiry(self, name: str, last_clock_ms: int) -> None:
        self._to_forget.setdefault((last_clock_ms + self._forget_ms) // DAY_MS, []).append(name)

    def _open(self, name: str, value: bytes) -> KeyState:
        return KeyState.of(self._versions.open(KEY_PREFIX + name, value, read_key))

    def _is_young(self, state: KeyState) -> bool:
        return state.baseline.exposure_days < self._learning_days
