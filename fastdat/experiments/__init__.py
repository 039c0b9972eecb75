"""Experiments of the paper and one beside it, each from its data to its figure or table: ``fastdat reproduce NAME``.

Shared by experiments:

- :mod:`~fastdat.experiments.ensemble` trains many small GANs at once.
- :mod:`~fastdat.experiments.mixture_study` trains and measures the arms of a comparison on Gaussian mixtures.
- :mod:`~fastdat.experiments.study_record` turns what it found into types that JSON knows.

Of each experiment:

- ``fig3.py`` and ``regularizer_study.py`` say what is compared and run it.
- ``fig3_outputs.py`` and ``regularizer_outputs.py`` turn the result into files: JSON, a table, a picture of Fig. 3.

``fig3_landing.py`` draws a smaller version of Fig. 3 from its files, for the top of the README.
"""
