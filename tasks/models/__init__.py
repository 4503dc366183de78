"""Model backends: one protocol a kind, one file or folder a backend."""
