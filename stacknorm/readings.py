"""What the members said of some texts: who was asked about which, who answered, and why the others did not."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from stacknorm.pooling.pool import Probabilities

Places = npt.NDArray[np.int64]


class Readings:
    """Filled by one call of the engine, batch by batch. Shapes: a member's shares of a task are [n, head labels]."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.stages: Places = np.zeros(rows, dtype=np.int64)
        """The last stage of the stack that read each row, counted from 0; [n]."""
        self.reasons: dict[str, str] = {}
        """Member -> why it failed last."""
        self._asked: dict[str, npt.NDArray[np.bool_]] = {}
        self._shares: dict[str, dict[str, Probabilities]] = {}

    def ask(self, members: Iterable[str], rows: Places) -> None:
        """Remember that `members` were asked about `rows`."""
        for member in members:
            self._asked.setdefault(member, np.zeros(self.rows, dtype=bool))[rows] = True

    def record(self, member: str, task: str, rows: Places, shares: Probabilities) -> None:
        """Keep what a member said of `rows`, [rows, head labels]."""
        whole = self._shares.setdefault(task, {})
        if member not in whole:
            whole[member] = np.full((self.rows, shares.shape[1]), np.nan)
        whole[member][rows] = shares

    def fail(self, reasons: Mapping[str, str]) -> None:
        """Keep why members failed."""
        self.reasons.update(reasons)

    def of(self, task: str) -> Mapping[str, Probabilities]:
        """Member -> [n, head labels]; NaN where it was not asked, or failed."""
        return self._shares.get(task, {})

    def dropped(self) -> list[tuple[str, ...]]:
        """For each row, the members that were asked and did not answer for some task of theirs."""
        lost: dict[str, npt.NDArray[np.bool_]] = {}
        for member, asked in self._asked.items():
            given = [np.isnan(tasks[member]).any(axis=1) for tasks in self._shares.values() if member in tasks]
            lost[member] = asked & (np.any(given, axis=0) if given else True)
        return [tuple(member for member, rows in lost.items() if rows[row]) for row in range(self.rows)]
