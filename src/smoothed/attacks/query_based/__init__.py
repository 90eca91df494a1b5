"""Attacks that use only the answers to queries, which are counted and limited."""
