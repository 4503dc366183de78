"""How fast this machine labels: where the time goes, and what would help."""
