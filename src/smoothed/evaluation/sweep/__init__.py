"""Accuracy at every sigma, vote and M, with significance tests of the best setting."""
