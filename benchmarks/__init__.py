"""What Vouch costs in time and memory, measured one after the other, each in a process of its own."""
