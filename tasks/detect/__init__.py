"""Boxes of the declared classes: scores of phrases become one class an object."""
