"""The campaign file, section by section."""
