"""The exposure clock: time in which news could have come. It stands still while the whole feed is silent.

An hour counts for as much as news usually comes in that hour of the week. Exposures are whole milliseconds, differences
of one function of the clock that is cut to them, so they add up to the last one, however time is divided.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final

from mypy_extensions import mypyc_attr

from schemas.events import KeyType

HOUR_MS: Final = 3_600_000
HOURS: Final = 168
MONDAY_MS: Final = 4 * 24 * HOUR_MS
"""The first Monday of the epoch, which began on a Thursday."""

WHOLE: Final = 1000
"""The weight of an hour that is like the mean of all."""

_WEEK_MS: Final = HOURS * HOUR_MS


@mypyc_attr(native_class=False)  # for the property that is cached
@dataclass(frozen=True)
class Profile:
    """How much of a usual hour each hour of the week is, in thousandths, from Monday 0:00 UTC on; their mean is 1."""

    weights: tuple[int, ...] = tuple([WHOLE] * HOURS)

    def __post_init__(self) -> None:
        if len(self.weights) != HOURS or min(self.weights) < 1 or sum(self.weights) != HOURS * WHOLE:
            raise ValueError(
                f"a profile is {HOURS} whole thousandths of at least 1 and of {HOURS * WHOLE} in all, not "
                f"{len(self.weights)} of {sum(self.weights)}"
            )

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        """Exposure of the week before each of its hours, in thousandths of a millisecond."""
        return tuple(accumulate((weight * HOUR_MS for weight in self.weights[:-1]), initial=0))

    def exposure_ms(self, clock_ms: int) -> int:
        """Exposure from the first Monday of the epoch to a clock, silences not left out; a full week is a week."""
        week, rest_ms = divmod(clock_ms - MONDAY_MS, _WEEK_MS)
        hour, rest_ms = divmod(rest_ms, HOUR_MS)
        return week * _WEEK_MS + (self._starts[hour] + self.weights[hour] * rest_ms) // WHOLE

    def clock_ms(self, exposure_ms: int) -> int:
        """The first clock at which that exposure is reached."""
        week, rest_ms = divmod(exposure_ms, _WEEK_MS)
        hour = bisect_right(self._starts, rest_ms * WHOLE) - 1
        within_ms = -((self._starts[hour] - rest_ms * WHOLE) // self.weights[hour])
        return MONDAY_MS + week * _WEEK_MS + hour * HOUR_MS + within_ms


FLAT: Final = Profile()
"""One to one with the clock."""


MomentFields = tuple[int, int]


@mypyc_attr(acyclic=True)
class Moment:
    """An instant on the merge clock, and the exposure there."""

    __slots__ = ("clock_ms", "exposure_ms")

    def __init__(self, clock_ms: int, exposure_ms: int) -> None:
        self.clock_ms: Final = clock_ms
        self.exposure_ms: Final = exposure_ms

    @staticmethod
    def of(fields: MomentFields) -> "Moment":
        """The one that was written so."""
        return Moment(fields[0], fields[1])

    def fields(self) -> MomentFields:
        """What is written of it."""
        return self.clock_ms, self.exposure_ms


BEFORE_ALL: Final = Moment(0, 0)


@dataclass
class Exposure:
    """Exposure in milliseconds at the feed's last item; after it time counts for ``max_silence_ms``.

    ``now`` is that item's moment, once there is one.
    """

    max_silence_ms: int
    total_ms: int = 0
    last_item_clock_ms: int | None = None
    profile: Profile = FLAT
    now: Moment = BEFORE_ALL

    def at(self, clock_ms: int) -> int:
        """Exposure at a clock not before the last item's."""
        last_ms = self.last_item_clock_ms
        if last_ms is None or clock_ms == last_ms:
            return self.total_ms
        end_ms = min(clock_ms, last_ms + self.max_silence_ms)
        if self.profile is FLAT:
            return self.total_ms + end_ms - last_ms
        return self.total_ms + self.profile.exposure_ms(end_ms) - self.profile.exposure_ms(last_ms)

    @property
    def still_from_ms(self) -> int:
        """The clock at which it stands still if no more items come."""
        return (self.last_item_clock_ms or 0) + self.max_silence_ms

    def clock_at(self, exposure_ms: int) -> int | None:
        """The first clock, not before the last item's, at which that exposure is reached if no more items come.

        None if it stands still before. More items do not change it once it is reached.
        """
        last_ms = self.last_item_clock_ms
        if last_ms is None or exposure_ms <= self.total_ms:
            return last_ms
        clock_ms = self.profile.clock_ms(self.profile.exposure_ms(last_ms) + exposure_ms - self.total_ms)
        return clock_ms if clock_ms <= self.still_from_ms else None

    def advance(self, clock_ms: int) -> int:
        """An item came: the exposure at its clock."""
        self.total_ms = self.at(clock_ms)
        self.last_item_clock_ms = clock_ms
        self.now = Moment(clock_ms, self.total_ms)
        return self.total_ms


class Exposures:
    """The exposure of each key type, by its profile, and the ``flat`` one; all on the clock of the same items."""

    def __init__(self, max_silence_ms: int, profile_of: Callable[[KeyType], Profile]) -> None:
        self.flat = Exposure(max_silence_ms)
        self._by_type = {
            key_type: self.flat
            if profile_of(key_type) == FLAT
            else Exposure(max_silence_ms, profile=profile_of(key_type))
            for key_type in KeyType
        }
        self._distinct = self._find_distinct()

    def of(self, key_type: KeyType) -> Exposure:
        """The one that keys of a type go by."""
        return self._by_type[key_type]

    def advance(self, clock_ms: int) -> None:
        """An item came."""
        for exposure in self._distinct:
            exposure.advance(clock_ms)

    def _find_distinct(self) -> tuple[Exposure, ...]:
        return tuple({id(exposure): exposure for exposure in (self.flat, *self._by_type.values())}.values())

    def others(self) -> list[dict[str, int]]:
        """What ``restore`` takes beside the flat one: the totals that differ from it, if any do, by key type."""
        totals_ms = {key_type.value: exposure.total_ms for key_type, exposure in self._by_type.items()}
        others = {name: total_ms for name, total_ms in totals_ms.items() if total_ms != self.flat.total_ms}
        return [others] if others else []

    def restore(self, total_ms: int, last_item_clock_ms: int | None, others: Mapping[str, int] | None = None) -> None:
        """Go on from these totals; exposure of a type goes on from its own, whatever the profiles were before."""
        totals_ms = others or {}
        self.flat.total_ms, self.flat.last_item_clock_ms = total_ms, last_item_clock_ms
        for key_type, exposure in self._by_type.items():
            own_ms = totals_ms.get(key_type.value, total_ms)
            self._by_type[key_type] = (
                self.flat
                if exposure.profile == FLAT and own_ms == total_ms
                else Exposure(exposure.max_silence_ms, own_ms, last_item_clock_ms, exposure.profile)
            )
        self._distinct = self._find_distinct()
