"""A reviewer's desk in FiftyOne: leased items laid out as samples, and read back as verdicts."""
