from tests.training.run_fixtures import cheap_extractor, run

__all__ = ["cheap_extractor", "run"]
