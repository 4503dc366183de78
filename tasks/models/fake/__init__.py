"""Backends without models, for tests and measurements of everything else."""
