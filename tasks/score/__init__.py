"""Compares every crop with its class and with everything else it might be."""
