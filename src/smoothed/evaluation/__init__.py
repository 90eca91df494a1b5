"""Evaluation protocols: clean, attacked and certified accuracy of single draws and of votes, with intervals."""
