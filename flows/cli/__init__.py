"""The command line: `vouch`."""

from flows.cli.app import main

__all__ = ["main"]
