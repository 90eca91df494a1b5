"""Attacks that maximise a loss inside a ball."""
