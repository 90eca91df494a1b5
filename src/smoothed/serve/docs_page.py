"""A page that describes the interface of the service, made from its OpenAPI schema; it needs no network."""

from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; font-size: 1.2rem; }
code { font: 0.95em ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid #8886; }
"""


def docs_page(schema: dict[str, Any], *, explorer: bool) -> str:
    """The page.

    Args:
        schema: the OpenAPI schema.
        explorer: whether the service has an explorer to link to.
    """
    link = ' <a href="./">To the explorer</a>.' if explorer else ""
    info = schema["info"]
    sections = [
        _section(method.upper(), path, operation, schema)
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info.get('description', ''))}</p>"
        f'<p>For programs: <a href="openapi.json">openapi.json</a>.{link}</p>'
        f"{''.join(sections)}</body></html>"
    )


def _section(method: str, path: str, operation: dict[str, Any], schema: dict[str, Any]) -> str:
    parts = [f"<h2><code>{method} {escape(path)}</code></h2><p>{escape(operation.get('summary', ''))}.</p>"]
    if description := operation.get("description"):
        parts += [f"<p>{escape(part)}</p>" for part in description.split("\n\n")]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h3>Request, <code>{escape(kind)}</code></h3>{_fields(content['schema'], schema)}")
    for status, response in operation.get("responses", {}).items():
        kinds = ", ".join(response.get("content", {})) or "no body"
        parts.append(f"<p>Status {escape(status)}, {escape(kinds)}: {escape(response.get('description', ''))}</p>")
        for content in response.get("content", {}).values():
            parts.append(_fields(content.get("schema", {}), schema))
            for event in content.get("schema", {}).get("oneOf", ()):
                parts.append(
                    f"<h3>Event <code>{escape(event['title'])}</code></h3><p>{escape(event.get('description', ''))}</p>"
                    f"{_fields(event, schema)}"
                )
    return "".join(parts)


def _fields(part: dict[str, Any], schema: dict[str, Any]) -> str:
    """A table of the fields of an object; empty for another kind."""
    part = _resolved(part, schema)
    required = part.get("required", ())
    rows = [
        f"<tr><td><code>{escape(name)}</code></td><td>{'required' if name in required else _default(field)}</td>"
        f"<td>{escape(_resolved(field, schema).get('description') or field.get('description') or '')}</td></tr>"
        for name, field in part.get("properties", {}).items()
    ]
    head = '<tr><th scope="col">field</th><th scope="col">default</th><th scope="col">meaning</th></tr>'
    return f"<table>{head}{''.join(rows)}</table>" if rows else ""


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    return "" if value is None else escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _resolved(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = part.get("$ref", "")
    return schema["components"]["schemas"][reference.rpartition("/")[2]] if reference else part
