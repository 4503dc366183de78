"""segment-anything's SAM as a segmenter."""
