"""Experiments of the paper, each from its data to its figure or table: ``fastdat reproduce NAME``.

Shared by experiments:

- :mod:`~fastdat.experiments.ensemble` trains many small GANs at once.
- :mod:`~fastdat.experiments.mixture_study` trains and measures the arms of a comparison on Gaussian mixtures.

Of each experiment:

- ``NAME.py`` says what is compared and runs it.
- ``NAME_outputs.py`` turns the result into the files ``NAME.json``, ``NAME.txt`` and ``NAME.png``.

``fig3_landing.py`` draws a smaller version of Fig. 3 from its files, for the top of the README.
"""
