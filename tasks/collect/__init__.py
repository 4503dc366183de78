"""Reads a run's tables back: as labelled images, and as counts."""
