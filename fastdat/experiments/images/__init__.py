"""Experiments on images: ordinary runs of :class:`fastdat.Trainer`, compared by their scores and measurements."""
