"""Scripts that train the bundled pair, runnable as ``python -m scout_core.evaluation.training.…``."""
