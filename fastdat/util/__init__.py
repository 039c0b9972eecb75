"""Plumbing that every part of the package may use: settings, files, errors, provenance."""
