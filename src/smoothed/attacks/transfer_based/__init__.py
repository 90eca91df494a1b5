"""Attacks that borrow the gradients of another network."""
