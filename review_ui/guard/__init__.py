"""Stands around FiftyOne's server, which itself asks nobody who they are: what is not allowed here is refused."""
