"""What all benchmarks share: child processes, tables, the words for the machine, the files written."""
