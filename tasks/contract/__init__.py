"""From verdicts to a policy that keeps a promise: what to review, what it certifies, what is in force."""
