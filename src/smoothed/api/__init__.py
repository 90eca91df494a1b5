"""The public functions: each takes any classifier and any images, and is one file."""
