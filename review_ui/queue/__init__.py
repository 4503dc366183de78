"""The review queue: items leased to people, answers that are never lost, verdicts pulled exactly once."""
