"""Labelled spans of a text: tagging schemes, pooling by character, scores."""
