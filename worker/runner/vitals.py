"""What a running role says of itself to the health endpoints."""

from dataclasses import dataclass


@dataclass(slots=True)
class Vitals:
    """``waiting_for`` is why no work can be done now, in a few words; None while it can."""

    role: str
    waiting_for: str | None = "the start"

    def ready(self) -> str | None:
        """What is wrong, in a sentence; None when all is well."""
        return None if self.waiting_for is None else f"{self.role} waits for {self.waiting_for}"
