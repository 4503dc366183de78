"""Guards FiftyOne's server, which has no login: what is not allowed here is refused."""
