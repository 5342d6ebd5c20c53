"""stacknorm: stacks of transformers, normalised onto one label space, pooled and calibrated."""

__version__ = "0.1.0"
