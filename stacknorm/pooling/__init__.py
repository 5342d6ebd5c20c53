"""Numbers alone: pools, calibrators, uncertainty and conformal sets over arrays of probabilities."""
