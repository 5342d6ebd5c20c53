"""Members that lack labels of a task: two classes among three, ten topics among twenty.

Such a member answers a narrower question: its probabilities are conditional, p(y | y is a label it has). Taken as they
are, its zeros pull the labels it never learned down in a linear pool and veto them in a log pool.
"""

import numpy as np
import numpy.typing as npt

from stacknorm.pooling.pool import Probabilities


def fill_lacking(members: Probabilities, has: npt.NDArray[np.bool_], *, exclusive: bool = True) -> Probabilities:
    """Let the members that have all labels say what the others cannot.

    By the chain rule p(y) = p(y | y in S) p(S): a member keeps the ratios of the labels S it has, and takes p(S) and
    what lies outside of it from the mean of the members that have all labels. So it says nothing about labels it
    lacks, whatever pool follows, and what it says about the others counts in full.

    Args:
        members: [k, n, c]; NaN where a member did not speak.
        has: which labels each member has, [k, c].
        exclusive: whether one label excludes the others; if not, only the lacking probabilities are taken.

    Returns:
        [k, n, c], each [k, n] a distribution if `exclusive`. Rows on which no member with all labels spoke are left
        as they are, with zeros.
    """
    whole = np.asarray(has.all(axis=1))
    if whole.all():
        return members
    spoke = np.asarray(~np.isnan(members).any(axis=2))  # [k, n]
    known = spoke & whole[:, None]
    mean = np.where(known[:, :, None], members, 0).sum(axis=0) / known.sum(axis=0).clip(min=1)[:, None]  # [n, c]
    own = members
    if exclusive:
        given = np.where(has[:, None], members, 0)
        total = given.sum(axis=2, keepdims=True)
        own = given / np.where(total > 0, total, 1) * (mean @ has.T).T[:, :, None]
    fillable = spoke & ~whole[:, None] & known.any(axis=0)
    return np.where(fillable[:, :, None], np.where(has[:, None], own, mean), members)
