"""The engine: one discriminator step as one compiled graph. README.md beside this file is the way in."""
