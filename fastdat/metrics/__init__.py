"""Scores of generators: FID, KID, IS, precision and recall by torch-fidelity, and modes of 2-D mixtures."""

from fastdat.metrics.eval_config import EvalConfig
from fastdat.metrics.evaluators import Evaluator, ImageEvaluator, ModesEvaluator
from fastdat.metrics.extractors import Extractor, make_extractor, register_extractor
from fastdat.metrics.modes import Coverage, coverage

__all__ = [
    "Coverage",
    "EvalConfig",
    "Evaluator",
    "Extractor",
    "ImageEvaluator",
    "ModesEvaluator",
    "coverage",
    "make_extractor",
    "register_extractor",
]
