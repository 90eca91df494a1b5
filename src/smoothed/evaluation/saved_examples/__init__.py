"""Adversarial examples in a file, and what fresh votes of any network make of them."""
