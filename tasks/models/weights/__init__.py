"""Checkpoints: found by reference, pinned by SHA-256, read without running code."""
