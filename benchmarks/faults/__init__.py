"""Runs that are killed, run out of disk, or meet a bad store: what comes out in the end, against an undisturbed run."""
