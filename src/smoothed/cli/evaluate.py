def evaluate() -> None:
    """x."""
