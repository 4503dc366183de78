"""A simulated reviewer who knows the ground truth, and what a campaign of reviews would come to with it."""
