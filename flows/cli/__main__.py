"""`python -m flows.cli` is `vouch`."""

from flows.cli.app import main

main()
