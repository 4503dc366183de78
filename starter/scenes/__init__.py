"""The drawn world: scenes of emoji with exact ground truth."""
