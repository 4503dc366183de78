"""The command line: `vouch`."""

from vouch_labels.flows.cli.app import main

__all__ = ["main"]
