"""Names of the callables that users give in place of names."""

from functools import partial


def name_of(obj: object) -> str:
    """Return the name of an attack, vote, noise, recipe or model for tables and results.

    Args:
        obj: a name, or an object of any kind.

    Returns:
        A string as it is; the `__name__` of a function or class; for a `functools.partial`, the name of its function;
        else the name of the object's type.

    Example:
        >>> name_of("pgd"), name_of(len), name_of(partial(len)), name_of(1.0)
        ('pgd', 'len', 'len', 'float')
    """
    if isinstance(obj, str):
        return obj
    while isinstance(obj, partial):
        obj = obj.func
    name = getattr(obj, "__name__", None)
    return name if isinstance(name, str) else type(obj).__name__
