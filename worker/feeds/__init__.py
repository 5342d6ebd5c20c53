"""Edges towards the world: what sends news to the raw topic."""
