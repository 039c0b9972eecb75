"""Clocks: timings in turns, and of host and device alone."""
