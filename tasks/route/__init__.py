"""Decides which labels are accepted and which go to review."""
