"""Attacks that climb a loss inside a ball."""
