"""One call of the engine: what is read, by whom, who answered, and how answers come of it."""
