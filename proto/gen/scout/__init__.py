"""The generated wire contract: one package a version."""
