"""Smoothed inference: input noise, votes, drawing and counting, stopping rules, and certification."""
