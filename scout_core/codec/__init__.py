"""Bytes for KV caches, position sets and token ids; see README.md for the formats."""
