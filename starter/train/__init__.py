"""One command a model trains it on drawn scenes."""
