"""The exposure clock: time in which news could have come. It stands still while the whole feed is silent."""

from dataclasses import dataclass


@dataclass(slots=True)
class Exposure:
    """Exposure in milliseconds at the feed's last item; flat, one to one with the clock, up to ``max_silence_ms``."""

    max_silence_ms: int
    total_ms: int = 0
    last_item_clock_ms: int | None = None

    def at(self, clock_ms: int) -> int:
        """Exposure at a clock not before the last item's."""
        if self.last_item_clock_ms is None:
            return self.total_ms
        return self.total_ms + min(clock_ms - self.last_item_clock_ms, self.max_silence_ms)

    def advance(self, clock_ms: int) -> int:
        """An item came: the exposure at its clock."""
        self.total_ms = self.at(clock_ms)
        self.last_item_clock_ms = clock_ms
        return self.total_ms
