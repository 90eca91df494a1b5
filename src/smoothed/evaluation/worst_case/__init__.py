"""Worst-case evaluation: accuracy under the strongest of many adaptive attacks on each image."""
