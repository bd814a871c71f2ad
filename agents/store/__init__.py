"""The store of runs: a folder of run folders, identified by their content, not their names."""
