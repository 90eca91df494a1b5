def download() -> None:
    """x."""
