"""The fault campaign: real workers on a cluster of three nodes, hit again and again as a seed plans; then a tally."""

import sys
from pathlib import Path

# pytest puts the parts of the integration tests on the path; `python -m tests.faults` has only this.
PARTS = str(Path(__file__).parents[1] / "integration")
if PARTS not in sys.path:
    sys.path.append(PARTS)
