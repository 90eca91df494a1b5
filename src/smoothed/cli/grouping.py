"""Groups of options: dataclasses whose fields are the options of a command, and become its options one by one."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Any


def expanded(command: Callable[..., None], shared: type, prepare: Callable[..., Any]) -> Callable[..., None]:
    """Return a function for Typer, with one parameter for each option of `command`.

    Args:
        command: function whose parameters are options, or groups of options: dataclasses whose fields are options,
            annotated as Typer requires.
        shared: group of options that every command has; they are not passed to `command`.
        prepare: context manager that is called with an object of `shared`; the command runs inside it.

    Returns:
        Function with the name and the docstring of `command`.
    """
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            groups[parameter.name] = kind
            parameters += _parameters(kind)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    parameters += _parameters(shared)

    @wraps(command)
    def run(**values: Any) -> None:  # noqa: ANN401 - values of any option
        def group(kind: type) -> Any:  # noqa: ANN401 - an object of `kind`
            return kind(**{field.name: values.pop(field.name) for field in fields(kind)})

        common = group(shared)
        settings = {name: group(kind) for name, kind in groups.items()}
        with prepare(common):
            command(**settings, **values)

    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters(group: type) -> list[inspect.Parameter]:
    def parameter(field: Field[Any]) -> inspect.Parameter:
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type)

    return [parameter(field) for field in fields(group)]
