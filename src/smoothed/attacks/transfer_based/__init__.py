"""Attacks that use the gradients of another network than the target."""
