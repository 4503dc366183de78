"""People's review of labels."""
