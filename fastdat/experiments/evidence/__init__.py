"""What DAT does on real images, measured with spread: a protocol fixed before the runs, and curves over the training.

These experiments are not the paper's, which gives one number for each of its runs. ``docs/evidence.md`` is the protocol
in words.
"""
