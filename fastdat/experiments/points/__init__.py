"""Experiments on Gaussian mixtures in the plane: many GANs of a few thousand parameters, trained at once.

- :mod:`~fastdat.experiments.points.ensemble` trains many small GANs at once.
- :mod:`~fastdat.experiments.points.mixture_study` trains and measures the arms of a comparison.
- :mod:`~fastdat.experiments.points.study_record` turns what it found into types that JSON knows.

``fig3.py`` and ``regularizer_study.py`` say what is compared and run it; ``fig3_outputs.py`` and
``regularizer_outputs.py`` turn the result into files. ``fig3_landing.py`` draws a smaller version of Fig. 3 from its
files, for the top of the README.
"""
