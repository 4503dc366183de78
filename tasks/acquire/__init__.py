"""Fetches images and turns every supported file into RGB pixels."""
