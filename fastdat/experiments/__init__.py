"""Experiments of the paper and some beside it, each from its data to its figure or table: ``fastdat reproduce NAME``.

- :mod:`~fastdat.experiments.catalogue` lists them by name, with their options.
- :mod:`~fastdat.experiments.outcome` says what an experiment returns, and
  :mod:`~fastdat.experiments.outcome_files` writes it: JSON, Markdown, CSV, figures.
- :mod:`~fastdat.experiments.arm_choice` is the rule of ``--only``.
- :mod:`~fastdat.experiments.keep_results` copies what is worth keeping, and
  :mod:`~fastdat.experiments.results_page` makes RESULTS.md of it.
- :mod:`~fastdat.experiments.points` holds those on Gaussian mixtures in the plane, which train in minutes on a CPU.
- :mod:`~fastdat.experiments.images` holds those on images.
"""
