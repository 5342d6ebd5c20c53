"""Bringing alerts to people and their tools: routes, what each receiver is told and when, and sending it.

All but `sending`, `memory`, `courier`, `process` and `cli` is pure.
"""
