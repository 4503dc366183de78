"""`python -m vouch_labels.flows.cli` is `vouch`."""

from vouch_labels.flows.cli.app import main

main()
