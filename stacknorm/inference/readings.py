"""What the members said in one call of the engine: who was asked about which text, who answered, why others did not."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from stacknorm.pooling.pool import Probabilities

Places = npt.NDArray[np.int64]
Rows = npt.NDArray[np.bool_]


class Readings:
    """Filled batch by batch; owned by one call. A text that a member failed on is lost to it, for all tasks."""

    def __init__(self, texts: int) -> None:
        self.texts = texts
        self.stages: Places = np.zeros(texts, dtype=np.int64)
        """The last stage of the stack that read each text, counted from 0; [texts]."""
        self.reasons: dict[str, str] = {}
        """Member -> why it failed last."""
        self._asked: dict[str, Rows] = defaultdict(self._none)
        self._lost: dict[str, Rows] = defaultdict(self._none)
        self._said: dict[str, dict[str, Probabilities]] = defaultdict(dict)

    def _none(self) -> Rows:
        return np.zeros(self.texts, dtype=bool)

    def ask(self, members: Iterable[str], texts: Places) -> None:
        """Remember that `members` were asked about `texts`."""
        for member in members:
            self._asked[member][texts] = True

    def fail(self, reasons: Mapping[str, str], texts: Places) -> None:
        """Keep why members gave nothing for `texts`."""
        self.reasons.update(reasons)
        for member in reasons:
            self._lost[member][texts] = True

    def record(self, task: str, member: str, rows: Places, said: Probabilities, of: int) -> None:
        """Keep what a member said of `rows`, [rows, head labels], out of `of` rows that the task is about."""
        whole = self._said[task]
        if member not in whole:
            whole[member] = np.full((of, said.shape[1]), np.nan)
        whole[member][rows] = said

    def of(self, task: str) -> Mapping[str, Probabilities]:
        """Member -> [rows, head labels]; NaN where it was not asked, or failed."""
        return self._said.get(task, {})

    def heard(self, members: Iterable[str]) -> Rows:
        """Texts on which at least one of `members` answered; [texts]."""
        heard = self._none()
        for name in members:
            heard |= self._asked[name] & ~self._lost[name]
        return heard

    def dropped(self) -> list[tuple[str, ...]]:
        """For each text, the members that were asked and failed."""
        found: list[tuple[str, ...]] = [()] * self.texts
        for member, lost in self._lost.items():
            for text in np.flatnonzero(lost & self._asked[member]):
                found[text] = (*found[text], member)
        return found
