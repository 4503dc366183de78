"""Compares a run's labels with ground truth."""
