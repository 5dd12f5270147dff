"""Metrics, data loading, studies and plots."""
