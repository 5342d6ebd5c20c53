"""The engine and the worker beside what one would use instead: `make bench`."""
