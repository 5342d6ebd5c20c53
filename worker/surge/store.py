"""The states of all keys in little memory: those met of late as objects, all others as their changelog records.

Owns how a state is kept, which ones changed, and when an idle key is forgotten. Knows nothing of statistics and alerts.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from mypy_extensions import mypyc_attr

from worker.surge.baseline import DAY_MS
from worker.surge.keys import Key
from worker.surge.lifecycle import KeyState, read_key
from worker.surge.rules import Rules
from worker.surge.versions import KEY_PREFIX, Versions

MAX_HOT: Final = 100_000
"""States kept as objects between batches, 1 to 2 kB each beside their records: reading a record takes longer."""


@mypyc_attr(acyclic=True)
class Entry:
    """A key at hand, and its state, to be changed in place or put anew. What follows is the store's own.

    ``record`` is that of the last batch, ``young`` and ``firing`` are what the counters hold of it. ``changed`` says
    that it waits to be sealed, ``met`` that it was since the store last looked for what to cool.
    """

    __slots__ = ("changed", "firing", "key", "met", "name", "record", "state", "young")

    def __init__(self, name: str, state: KeyState, record: bytes | None, *, young: bool, firing: bool) -> None:
        self.name: Final = name
        self.key: Final = Key.parse(name)
        self.state = state
        self.record = record
        self.young = young
        self.firing = firing
        self.changed = False
        self.met = False


class Keys:
    """Key names to states. A caller that changes a state says so by ``mark``, before ``seal_changes``.

    Nothing outside can tell a state that was packed from one that was not: it is what a restart would have read. A key
    that is idle, without a run and an alert, for ``forget_key_days`` is as one never met; ``sweep`` only frees its
    memory. Owned by one thread.
    """

    def __init__(self, rules: Rules, versions: Versions, max_hot: int = MAX_HOT) -> None:
        self._versions = versions
        self._max_hot = max_hot
        self._learning_days: float = rules.learning_days
        self._forget_ms = round(rules.forget_key_days * DAY_MS)
        self._kept: dict[str, Entry | bytes] = {}
        self._hot: deque[Entry] = deque()
        self._changed: list[Entry] = []
        self._dropped: list[str] = []
        self._to_forget: dict[int, list[str]] = {}
        self.young = 0
        self.firing = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    @property
    def changed(self) -> bool:
        """Whether ``seal_changes`` would give anything."""
        return bool(self._changed or self._dropped)

    def get(self, name: str) -> Entry | None:
        """A key, None where it is unknown."""
        kept = self._kept.get(name)
        if not isinstance(kept, bytes):
            return kept
        entry = self._kept[name] = self._warm(name, kept)
        self._hot.append(entry)
        return entry

    def states(self) -> Iterator[tuple[str, KeyState]]:
        """Every state, to be looked at."""
        for name, kept in self._kept.items():
            yield name, self._open(name, kept) if isinstance(kept, bytes) else kept.state

    def add(self, name: str, state: KeyState) -> Entry:
        """Take in a key that is unknown."""
        entry = self._kept[name] = Entry(name, state, None, young=False, firing=False)
        self._hot.append(entry)
        self._note_expiry(name, state.last_clock_ms)
        return entry

    def mark(self, entry: Entry) -> None:
        """Its state changes."""
        if not entry.changed:
            entry.changed = True
            self._changed.append(entry)

    def restore(self, name: str, value: bytes) -> Entry | None:
        """Take over a record; the key is returned where it is not idle."""
        state = self._open(name, value)
        self._kept[name] = value
        self._note_expiry(name, state.last_clock_ms)
        self.young += self._is_young(state)
        self.firing += state.firing is not None
        return None if state.is_idle() else self.get(name)

    def seal_changes(self) -> list[tuple[bytes, bytes | None]]:
        """The record of each key that changed since the last call, None where it is gone."""
        sealed: list[tuple[bytes, bytes | None]] = [((KEY_PREFIX + name).encode(), None) for name in self._dropped]
        for entry in self._changed:
            name = KEY_PREFIX + entry.name
            entry.record = self._versions.seal(name, entry.state.fields())
            sealed.append((name.encode(), entry.record))
            self._count(entry)
            entry.changed, entry.met = False, True
        self._dropped.clear()
        self._changed.clear()
        self._cool()
        return sealed

    def _count(self, entry: Entry) -> None:
        young, firing = self._is_young(entry.state), entry.state.firing is not None
        self.young += young - entry.young
        self.firing += firing - entry.firing
        entry.young, entry.firing = young, firing

    def _cool(self) -> None:
        """Keep those not met for long as their records, by the clock algorithm; every changed state is sealed."""
        while len(self._hot) > self._max_hot:
            entry = self._hot.popleft()
            if self._kept.get(entry.name) is not entry:
                continue  # it was dropped
            if entry.met:
                entry.met = False
                self._hot.append(entry)
            else:
                assert entry.record is not None, f"key {entry.name} was never sealed"
                self._kept[entry.name] = entry.record

    def is_forgotten(self, entry: Entry, clock_ms: int) -> bool:
        """Whether it is as unknown for an event at this clock."""
        return entry.state.last_clock_ms < clock_ms - self._forget_ms and entry.state.is_idle()

    def sweep(self, clock_ms: int, most: int) -> None:
        """Drop keys that nothing from this clock on can tell from new ones, looking at up to ``most``.

        Every key is looked at once in ``forget_key_days``, on the day on which it would be forgotten.
        """
        for _ in range(most):
            name = self._next_to_forget(clock_ms)
            if name is None:
                return
            kept = self._kept[name]
            entry = self._warm(name, kept) if isinstance(kept, bytes) else kept
            if self.is_forgotten(entry, clock_ms):
                self._drop(entry)
            else:
                self._note_expiry(name, max(entry.state.last_clock_ms, clock_ms - self._forget_ms))

    def _drop(self, entry: Entry) -> None:
        del self._kept[entry.name]
        if entry.changed:
            self._changed.remove(entry)
        self._dropped.append(entry.name)
        self.young -= entry.young
        self.firing -= entry.firing

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

    def _warm(self, name: str, value: bytes) -> Entry:
        state = self._open(name, value)
        return Entry(name, state, value, young=self._is_young(state), firing=state.firing is not None)

    def _open(self, name: str, value: bytes) -> KeyState:
        return KeyState.of(self._versions.open(KEY_PREFIX + name, value, read_key))

    def _is_young(self, state: KeyState) -> bool:
        return state.baseline.exposure_days < self._learning_days
