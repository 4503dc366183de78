"""Object storage: one protocol over a local folder and S3, manifests, filters, the workspace lock."""
