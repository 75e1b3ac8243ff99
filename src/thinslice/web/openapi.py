"""The page /openapi.json: every route of the API, described from the types that check its bodies."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from thinslice import __version__
from thinslice.web.door import JsonRoute


class ErrorDetail(msgspec.Struct):
    """What, where, and what to do."""

    code: str
    message: str
    field: str
    hint: str


class Error(msgspec.Struct):
    """The one shape of every refusal."""

    error: ErrorDetail


def openapi(routes: Iterable[JsonRoute]) -> dict[str, Any]:
    """An OpenAPI 3.1 document of these routes."""
    routes = list(routes)
    types = [Error, *[route.body for route in routes if route.body is not None]]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    error, bodies = schemas[0], iter(schemas[1:])
    refusal = {"description": "Refused; the error says why.", "content": {"application/json": {"schema": error}}}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation: dict[str, Any] = {
            "summary": route.summary,
            "operationId": "_".join([route.method.lower(), *re.findall(r"\w+", route.path)]),
            "responses": {
                **{str(status): {"description": text} for status, text in route.answer.items()},
                "default": refusal,
            },
        }
        if route.kinds:
            schemes: list[dict[str, list[str]]] = [{"bearer": []}]
            if "publishable" in route.kinds:
                schemes.append({"publishable": []})
            operation["security"] = schemes
            operation["description"] = f"Needs a {' or '.join(sorted(route.kinds))} key."
        named = [(name, "path") for name in re.findall(r"{(\w+)}", route.path)]
        named += [(name, "query") for name in route.parameters if (name, "path") not in named]
        if named:
            operation["parameters"] = [
                {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"},
                 "description": route.parameters.get(name, "")}
                for name, place in named
            ]  # fmt: skip
        if route.body is not None:
            operation["requestBody"] = {
                "required": True, "content": {"application/json": {"schema": next(bodies)}},
            }  # fmt: skip
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Thinslice", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "publishable": {"type": "apiKey", "in": "query", "name": "key"},
            },
        },
    }
