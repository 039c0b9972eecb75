"""Rewrites of the compiled graph."""
