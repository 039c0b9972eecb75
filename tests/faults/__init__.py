"""Runs that are killed, whose disk is full and whose files are damaged: none may lose a checkpoint or compute another
result. `make test` does a few rounds of each campaign, `make test-faults` many."""
