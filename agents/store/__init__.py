"""The store of runs: a folder of run folders, known by what they hold and not by their names."""
