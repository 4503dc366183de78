"""Pictures of labelled images, for people."""
