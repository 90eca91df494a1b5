"""The HTTP service of `smoothed serve`, and its page, the vote explorer (the extra `serve`)."""
