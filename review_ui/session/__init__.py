"""A reviewer's session in FiftyOne: leased items shown as samples, and read back as verdicts."""
