"""The certification workflow: what to review, what the answers certify, which policy is active."""
