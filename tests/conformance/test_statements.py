"""The table of the statements, statements.tsv: each one that binds a server is there once, and each has a test
that exists and says of itself that it covers it, or a reason for which it does not apply."""

import ast
import collections
import csv
import functools
import os
import re
import unittest

from support import Conversation

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
VERSIONS = {"3.1.1": ("MQTT3", 128), "5.0": ("MQTT5", 226)}
NOT_APPLICABLE = "not applicable: "

# The numbered statements that bind a server (also those that bind both sides), by area: of 3.1.1, of 5.0.
AREAS = (
    ("connect, connack",
     "3.1.0-1..2 3.1.2-1..3,18..22 3.1.3-1..6,8..9,11 3.1.4-1..5 3.2.0-1 3.2.2-4..6",
     "3.1.0-1..2 3.1.2-1..3,16..19,28..29 3.1.3-2..6,8,12 3.1.4-1..6 3.2.0-1..2 3.2.2-1,6..10,16"),
    ("session state",
     "3.1.2-4..6 3.2.2-1..3 4.1.0-1..2",
     "3.1.2-4..6,23 3.2.2-2..3 4.1.0-1..2"),
    ("will",
     "3.1.2-8..17 3.1.3-10 3.14.4-3",
     "3.1.2-7..15 3.1.3-9,11 3.2.2-12..13 3.14.4-3"),
    ("keep alive",
     "3.1.2-24 3.12.4-1",
     "3.1.2-22 3.2.2-22 3.12.4-1"),
    ("malformed packets",
     "2.2.2-1..2 2.3.1-1,3..7",
     "2.1.3-1 2.2.1-2,4..6 2.2.2-1"),
    ("UTF-8, data types",
     "1.5.3-1..3",
     "1.5.4-1..3 1.5.5-1 1.5.7-1"),
    ("publish",
     "3.3.1-1..4 3.3.2-1..3 3.3.4-1 3.3.5-2",
     "3.3.1-1..4 3.3.2-1..3 3.3.4-1,6"),
    ("QoS 1/2 flows, redelivery, order",
     "3.6.1-1 4.3.1-1 4.3.2-1..2 4.3.3-1..2 4.4.0-1 4.5.0-1 4.6.0-1,5..6",
     "3.4.2-1 3.5.2-1 3.6.1-1 3.6.2-1 3.7.2-1 4.3.1-1 4.3.2-1..5 4.3.3-1..13 4.4.0-1..2 4.5.0-1 4.6.0-5..6"),
    ("flow control, receive maximum",
     "",
     "3.3.4-7..10 4.9.0-1..3"),
    ("topic alias",
     "",
     "3.1.2-26..27 3.3.2-7..8,10..12"),
    ("packet size",
     "",
     "3.1.2-24..25 3.2.2-19..20 3.4.2-2..3 3.5.2-2..3 3.6.2-2..3 3.7.2-2..3 3.9.2-1..2 3.11.2-1..2 "
     "3.14.2-3..4 3.15.2-2..3"),
    ("properties of messages",
     "",
     "3.1.3-10 3.3.2-4..6,13..20"),
    ("subscribe, unsubscribe",
     "3.8.1-1 3.8.3-1..4 3.8.4-1..6 3.9.3-1..2 3.10.1-1 3.10.3-1..2 3.10.4-1..6",
     "3.8.1-1 3.8.3-1..2,5 3.8.4-1..8 3.9.3-1..2 3.10.1-1 3.10.3-1..2 3.10.4-1,4..6 3.11.3-1..2"),
    ("subscription options",
     "",
     "3.8.3-3"),
    ("topic names and filters, wildcards",
     "4.7.1-1..3 4.7.2-1 4.7.3-1..4",
     "4.7.0-1 4.7.1-1..2 4.7.2-1 4.7.3-1..4"),
    ("overlapping subscriptions, subscription identifiers",
     "3.3.5-1",
     "3.3.4-2..5"),
    ("shared subscriptions",
     "",
     "3.8.3-4 4.8.2-1..6"),
    ("retained messages",
     "3.1.2-7 3.3.1-5..12",
     "3.3.1-5..13"),
    ("auth exchange",
     "",
     "3.15.1-1 4.12.0-1..7 4.12.1-2"),
    ("disconnect, reason codes, error handling",
     "3.14.1-1 4.8.0-1..2",
     "3.14.0-1 3.14.1-1 3.14.2-1..2 3.14.4-1..2 4.13.1-1 4.13.2-1"),
    ("transport, WebSocket",
     "4.2.0-1 6.0.0-1..2,4",
     "4.2-1 6.0.0-1..2,4"),
)


def numbers(short):
    """"3.1.2-1..3,18 4.2-1": each of them."""
    for token in short.split():
        section, ranges = token.split("-")
        for part in ranges.split(","):
            first, _, last = part.partition("..")
            yield from (f"{section}-{number}" for number in range(int(first), int(last or first) + 1))


def rows():
    with open(os.path.join(HERE, "statements.tsv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def cases(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from cases(item)
        else:
            yield item


def covered():
    """(MQTT3 or MQTT5, number) -> the conformance tests that say so. A class of one version speaks for that."""
    found = collections.defaultdict(set)
    for case in cases(unittest.TestLoader().discover(HERE, "test_*.py")):
        if not isinstance(case, Conversation):
            continue
        kind, name = type(case), case.id().rsplit(".", 1)[1]
        for entry in getattr(getattr(kind, name), "covers", ()):
            version, number = entry.split()
            if kind.version is None or version == f"MQTT{3 if kind.version == 4 else 5}":
                found[version, number].add(f"conformance/{kind.__module__}.py::{kind.__name__}.{name}")
    return found


@functools.cache
def names_in(path):
    """The tests of a file below tests/: "Class.test_name", or "suite.name" of a unit test."""
    try:
        with open(os.path.join(TESTS, path), encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return set()
    if path.endswith(".c"):
        return {f"{suite}.{name}" for suite, name in re.findall(r"^Test\((\w+), (\w+)[,)]", text, re.M)}
    return {f"{kind.name}.{function.name}" for kind in ast.parse(text).body if isinstance(kind, ast.ClassDef)
            for function in kind.body if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")}


class Statements(unittest.TestCase):
    def test_each_statement_has_its_row(self):
        table = rows()
        for column, (version, (_, count)) in enumerate(VERSIONS.items(), 1):
            expected = {(number, area[0]) for area in AREAS for number in numbers(area[column])}
            self.assertEqual(len(expected), count)
            found = [(row["statement"].removeprefix("MQTT-"), row["area"]) for row in table if row["version"] == version]
            self.assertEqual(len(found), count, version)
            self.assertEqual(set(found), expected)
        self.assertEqual(len(table), sum(count for _, count in VERSIONS.values()))

    def test_each_row_has_tests_that_exist_or_a_reason(self):
        for row in rows():
            with self.subTest(row["version"] + " " + row["statement"]):
                self.assertGreater(len(row["what it asks"]), 10)
                self.assertTrue(row["tests"], "neither a test nor a reason")
                if row["tests"].startswith(NOT_APPLICABLE):
                    self.assertGreater(len(row["tests"]), len(NOT_APPLICABLE) + 5)
                    continue
                for test in row["tests"].split("; "):
                    path, _, name = test.partition("::")
                    if not path.startswith("conformance/"):  # the next test is about those
                        self.assertIn(name, names_in(path), path)

    def test_conformance_tests_and_rows_name_each_other(self):
        found = covered()
        named = collections.defaultdict(set)
        for row in rows():
            tests = {test for test in row["tests"].split("; ") if test.startswith("conformance/")}
            named[VERSIONS[row["version"]][0], row["statement"].removeprefix("MQTT-")] |= tests
        for key in sorted(set(found) | set(named)):
            self.assertEqual(named[key], found[key], key)


if __name__ == "__main__":
    unittest.main()
