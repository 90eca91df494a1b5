"""Accuracy at every sigma, vote and M, with tests of where it peaks."""
