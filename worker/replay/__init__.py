"""Labelling and detecting a past stretch of the raw topic again, apart from all that is live."""
