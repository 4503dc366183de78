"""SAM's forward pass, made fast on the package's own weights."""
