"""Experiments of the paper, each from its data to its figure and table."""
