"""Smoothed inference: input noise, votes, the loop that draws and counts, stopping rules, certification."""
