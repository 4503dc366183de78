"""Review plans and verdicts: written, read, checked, imported, and resolved to one answer a label."""
