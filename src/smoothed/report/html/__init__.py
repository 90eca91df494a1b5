"""Results as one HTML file that opens from disk without a network: `page.py` builds it from the other modules."""
