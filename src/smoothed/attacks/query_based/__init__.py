"""Attacks that see nothing but answers to queries, counted and bounded."""
