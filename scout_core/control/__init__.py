"""Deciding: link forecasts, compute costs, offers, mode policies and mid-transfer switches."""
