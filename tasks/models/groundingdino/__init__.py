"""GroundingDINO: the package's own model and checkpoints, batched and with its texts cached."""
