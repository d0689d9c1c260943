#!/usr/bin/env python3
"""Compares schemas/openapi.yaml with the routes that a program prints, and checks the document.

    check_openapi.py PRINT_ROUTES OPENAPI_YAML
    check_openapi.py PRINT_ROUTES IOTHUB_SERVICE_YAML iothub    whose errors have another form
"""
import re
import subprocess
import sys

import jsonschema
import yaml

METHODS = {"get", "put", "post", "patch", "delete"}


def described(document):
    return {(method, path) for path, item in document["paths"].items()
            for method in item if method in METHODS}


def resolve(document, value):
    """Follows one $ref within the document."""
    while isinstance(value, dict) and "$ref" in value:
        target = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        value = target
    return value


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def check_references(document):
    for reference in set(references(document)):
        try:
            resolve(document, {"$ref": reference})
        except KeyError:
            yield f"{reference} leads nowhere"


def check_routes(document, routes):
    for method, path in sorted(routes - described(document)):
        yield f"{method} {path} is served but not described"
    for method, path in sorted(described(document) - routes):
        yield f"{method} {path} is described but not served"


def check_parameters(document, path, item):
    for method in METHODS & set(item):
        listed = [resolve(document, p) for p in item.get("parameters", [])]
        listed += [resolve(document, p) for p in item[method].get("parameters", [])]
        named = {p["name"] for p in listed if p["in"] == "path"}
        if named != set(re.findall(r"{(\w+)}", path)):
            yield f"{method} {path}: path parameters are {sorted(named)}"


def check_answers(document, path, method, operation, has_body):
    """Errors are problems, and what every request of the API can meet is there."""
    answers = operation["responses"]
    if path.startswith("/v1/"):
        wanted = {"401", "403", "503"} | ({"400", "413", "415", "422"} if has_body else set())
        for status in sorted(wanted - set(answers)):
            yield f"{method} {path}: {status} is not described"
    for status, answer in answers.items():
        content = resolve(document, answer).get("content", {})
        if status >= "400" and set(content) != {"application/problem+json"}:
            yield f"{method} {path}: {status} is not a problem"
    if has_body != ("requestBody" in operation):
        yield f"{method} {path}: {'no' if has_body else 'a'} body is described"


def check_operations(document, is_iothub, with_body):
    ids = []
    for path, item in document["paths"].items():
        yield from check_parameters(document, path, item)
        for method in METHODS & set(item):
            ids.append(item[method]["operationId"])
            if not is_iothub:
                yield from check_answers(document, path, method, item[method], (method, path) in with_body)
    for name in {name for name in ids if ids.count(name) > 1}:
        yield f"operationId {name} is there twice"


def check_schemas(document):
    for name, schema in document["components"]["schemas"].items():
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            yield f"schema {name}: {error.message}"


def check_kinds(document, kinds):
    described_kinds = document["components"]["schemas"]["recent_kind"]["enum"]
    if described_kinds != kinds:
        yield f"recent_kind lists {described_kinds}, the gateway knows {kinds}"


def main():
    program, path, *which = sys.argv[1:]
    printed = subprocess.run([program, *which], capture_output=True, text=True, check=True).stdout
    lines = [tuple(line.split(" ", 1)) for line in printed.splitlines()]
    routes = {line for line in lines if line[0] in METHODS}
    with_body = {tuple(rest.split(" ")) for word, rest in lines if word == "body"}
    with open(path, encoding="utf-8") as file:
        document = yaml.safe_load(file)
    problems = [*check_references(document), *check_routes(document, routes),
                *check_operations(document, bool(which), with_body), *check_schemas(document)]
    if not which:
        problems += check_kinds(document, [name for word, name in lines if word == "kind"])
    print("\n".join(problems) or f"openapi: {len(routes)} routes described")
    return 1 if problems or not routes else 0


if __name__ == "__main__":
    sys.exit(main())
