"""Check the shapes in signatures, and nothing else: what the package refuses itself must reach it in the tests."""

import dataclasses
import functools
import inspect

import jaxtyping
from jaxtyping import AbstractArray, install_import_hook

in_one_scope = jaxtyping.jaxtyped  # within which equal names of dimensions are equal numbers


def check_package(name):
    """Check the shapes of each call to functions of this package, which has to be imported afterwards.

    The hook puts `jaxtyping.jaxtyped` in front of each function and class. `check_shapes` replaces it: it leaves
    functions without shapes as they are, so that the tests take a fifth less time.
    """
    install_import_hook(name, None)
    jaxtyping.jaxtyped = lambda **_: check_shapes


def check_shapes(checked):
    """Raise a TypeError where an argument or the result of a function is not of its annotated jaxtyping shape.

    Of a class, the arguments of a data class are checked.
    """
    if isinstance(checked, classmethod | staticmethod):
        return type(checked)(check_shapes(checked.__func__))
    if isinstance(checked, property):
        return checked.getter(check_shapes(checked.fget))
    if inspect.isclass(checked):
        if dataclasses.is_dataclass(checked) and "__init__" in vars(checked):
            checked.__init__ = check_shapes(checked.__init__)
        return checked
    return _check_function(checked) if inspect.isfunction(checked) else checked


def _check_function(function):
    signature = inspect.signature(function)
    shapes = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if _is_shape(parameter.annotation)
    }
    of_result = _is_shape(signature.return_annotation)
    if not shapes and not of_result:
        return function

    @functools.wraps(function)
    def checked(*args, **kwargs):
        with in_one_scope("context"):
            given = signature.bind(*args, **kwargs).arguments
            for name, shape in shapes.items():
                if name in given and not isinstance(given[name], shape):
                    raise TypeError(f"{function.__qualname__}: {name} is not {shape}, but {_describe(given[name])}")
            result = function(*args, **kwargs)
            if of_result and not isinstance(result, signature.return_annotation):
                raise TypeError(f"{function.__qualname__} gave {_describe(result)}, not {signature.return_annotation}")
            return result

    return checked


def _is_shape(annotation):
    return isinstance(annotation, type) and issubclass(annotation, AbstractArray)


def _describe(value):
    return f"{getattr(value, 'dtype', type(value))} {tuple(getattr(value, 'shape', ()))}"
