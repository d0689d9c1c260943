"""Answers of the HTTP API against its description, schemas/openapi.yaml."""

import os
import re

import jsonschema
import yaml

from harness import ROOT

METHODS = ("get", "put", "post", "patch", "delete")


class Contract:
    """schemas/openapi.yaml: says what is wrong with an answer."""

    def __init__(self):
        with open(os.path.join(ROOT, "schemas/openapi.yaml"), encoding="utf-8") as file:
            self.document = yaml.safe_load(file)
        self.operations = {}
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    pattern = re.compile(re.sub(r"{\w+}", "[^/]+", path) + "$")
                    self.operations[item[method]["operationId"]] = (method, pattern, item[method])
        self.seen = set()

    def resolved(self, value):
        """value with every $ref replaced by what it names."""
        if isinstance(value, list):
            return [self.resolved(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            target = self.document
            for part in value["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return self.resolved({**target, **{k: v for k, v in value.items() if k != "$ref"}})
        return {name: self.resolved(inner) for name, inner in value.items()}

    def find(self, method, path):
        return next(((name, operation) for name, (m, pattern, operation) in self.operations.items()
                     if m == method.lower() and pattern.match(path)), (None, None))

    def check(self, method, path, answer):
        name, operation = self.find(method, path)
        if operation is None:
            raise AssertionError(f"{method} {path} is not in openapi.yaml")
        described = self.resolved(operation["responses"].get(str(answer.status)))
        if described is None:
            raise AssertionError(f"{name} answered {answer.status}, which is not described: {answer.text}")
        for header, row in described.get("headers", {}).items():
            value = answer.headers.get(header)
            if value is None:
                raise AssertionError(f"{name}: {answer.status} without {header}")
            if row["schema"]["type"] == "string":
                jsonschema.validate(value, row["schema"])
        self.check_body(name, described.get("content"), answer)
        self.seen.add((name, answer.status))

    @staticmethod
    def check_body(name, content, answer):
        if not content:
            if answer.text:
                raise AssertionError(f"{name}: {answer.status} with a body: {answer.text}")
            return
        media_type = (answer.headers.get("Content-Type") or "").split(";")[0]
        if media_type not in content:
            raise AssertionError(f"{name}: {answer.status} is {media_type}, not {list(content)}")
        if media_type.endswith("json"):
            jsonschema.Draft202012Validator(content[media_type]["schema"]).validate(answer.body)
        if media_type == "application/problem+json" and answer.body["status"] != answer.status:
            raise AssertionError(f"{name}: the problem says {answer.body['status']}")
