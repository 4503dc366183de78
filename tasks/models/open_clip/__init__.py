"""CLIP through open_clip as a scorer."""
