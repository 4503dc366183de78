"""The engine against the loop that one writes with the packages: the same work on the same device."""
