"""Attacks that minimise the norm of a perturbation that fools the model."""
