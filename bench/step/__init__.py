"""One step of the discriminator: variants, their correctness, FLOPs, speed and table."""
