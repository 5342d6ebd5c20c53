"""Edges towards people: what reads labels and alerts and shows them."""
