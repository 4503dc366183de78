"""Does the contract hold? Simulated worlds in which the truth is known."""
