"""Measures the starter models on scenes that they have not seen."""
