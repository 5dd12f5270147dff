"""Hypothesis without per-example deadlines: compiling and busy machines are not failures."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("codec", deadline=None)
settings.load_profile("codec")
