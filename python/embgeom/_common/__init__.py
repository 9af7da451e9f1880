"""What all rooms share: arrays, checks, threads, progress, files, tables, results."""
