"""Spectral norm of all layers of a discriminator at once."""
