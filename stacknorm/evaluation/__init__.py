"""How good a bundle is: scores with intervals, leak audit, comparison, and the report people read."""
