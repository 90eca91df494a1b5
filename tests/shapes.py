"""Check the shapes in signatures, and nothing else: what the package refuses itself must reach it in the tests."""

import functools
import inspect

from jaxtyping import AbstractArray


def check_shapes(function):
    """Raise a TypeError where an argument or the result is not of its annotated jaxtyping shape."""
    signature = inspect.signature(function)
    shapes = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if _is_shape(parameter.annotation)
    }

    @functools.wraps(function)
    def checked(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        for name, shape in shapes.items():
            if name in given and not isinstance(given[name], shape):
                raise TypeError(f"{function.__qualname__}: {name} is not {shape}, but {_describe(given[name])}")
        result = function(*args, **kwargs)
        if _is_shape(signature.return_annotation) and not isinstance(result, signature.return_annotation):
            raise TypeError(f"{function.__qualname__} gave {_describe(result)}, not {signature.return_annotation}")
        return result

    return checked


def _is_shape(annotation):
    return isinstance(annotation, type) and issubclass(annotation, AbstractArray)


def _describe(value):
    return f"{getattr(value, 'dtype', type(value))} {tuple(getattr(value, 'shape', ()))}"
