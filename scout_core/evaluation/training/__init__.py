"""Scripts that train the bundled pair: ``python -m scout_core.evaluation.training.NAME``."""
