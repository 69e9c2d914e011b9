"""What a run needs of the machine: processes, signals, locks, files, memory, start-up, one-line errors."""
