"""Trains a detector on the labels of a run, for the next round of a campaign."""
