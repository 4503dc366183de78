"""Small models that work offline, the drawn world they know, and their training."""
