"""Bundles made of finished members: with a pool fitted on labelled rows, a cascade, a channel."""
