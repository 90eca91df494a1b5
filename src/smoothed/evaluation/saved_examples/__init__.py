"""Adversarial examples saved to a file, and the accuracy of any model on them."""
