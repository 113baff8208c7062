"""Draws the figures of the notebooks, each module those of one subject; readers never need it."""
