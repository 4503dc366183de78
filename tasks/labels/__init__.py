"""Readers of a run's labels: streamed by image, as arrays, as counts."""
