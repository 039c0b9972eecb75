"""Experiments on Gaussian mixtures in the plane: many GANs of a few thousand parameters, trained at once.

- :mod:`~fastdat.experiments.points.ensemble` trains many small GANs at once.
- :mod:`~fastdat.experiments.points.study` says what a comparison is and what it finds;
  :mod:`~fastdat.experiments.points.mixture_study` trains and measures its arms, shown by ``study_progress.py``, and
  ``study_state.py`` keeps how far they are, so that a killed study goes on.
- :mod:`~fastdat.experiments.points.study_tables` turns the result into tables and sentences,
  :mod:`~fastdat.experiments.points.study_record` into types that JSON knows, ``sweep_figure.py`` and
  ``points_figure.py`` into figures.

``fig3.py``, ``fig6.py``, ``fig7.py``, ``table3.py``, ``table4.py`` and ``fig5_points.py`` are the paper's experiments;
all but the first share ``quick_study.py``. ``regularizer_study.py`` is one of our own. ``fig3_outputs.py`` and
``regularizer_outputs.py`` write the files of two of them, and ``fig3_landing.py`` draws a smaller version of Fig. 3
from its files, for the top of the README.
"""
