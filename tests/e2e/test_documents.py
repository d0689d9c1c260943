"""Documents that are made from tables stand as the binary prints them; links in the README lead somewhere."""

import os
import re
import subprocess
import sys
import unittest

import yaml

from harness import BUILDS, ROOT

import test_tls

sys.path.append(os.path.join(ROOT, "tests/interop"))
import mqtt_clients  # noqa: E402

DURAGATE = os.path.join(BUILDS, "asan", "duragate")


def run(*arguments):
    return subprocess.run([DURAGATE, *arguments], capture_output=True, text=True, timeout=20, check=False)


def source(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


class Documents(unittest.TestCase):
    def test_configuration_reference_is_current(self):
        with open(os.path.join(ROOT, "schemas/configuration.md"), encoding="utf-8") as file:
            self.assertEqual(file.read(), run("check-config", "--reference").stdout,
                             "make it anew: duragate check-config --reference > schemas/configuration.md")

    def test_clients_are_those_that_are_tested(self):
        with open(os.path.join(ROOT, "docs/clients.md"), encoding="utf-8") as file:
            text = file.read()
        for name, rows in (("MQTT client", mqtt_clients.ROWS), ("TLS stack", test_tls.ROWS)):
            table = text.split(f"| {name} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
            self.assertEqual(table, [str(row) for row in rows])
    def test_asyncapi_has_the_names_of_the_code(self):
        with open(os.path.join(ROOT, "schemas/asyncapi.yaml"), encoding="utf-8") as file:
            text = file.read()
        document = yaml.safe_load(text)
        self.assertEqual(document["asyncapi"], "3.0.0")
        for reference in re.findall(r"\$ref: '#/([^']+)'", text):
            node = document
            for name in reference.split("/"):
                self.assertIn(name, node, reference)
                node = node[name]
        sessions = source("gateway/session/session_sequence.c") + source("gateway/session/session_receipt.c")
        self.assertEqual(set(re.findall(r'"(dg-[a-z]+)"', sessions)),
                         set(re.findall(r"\b(dg-[a-z]+)\b", text)))
        self.assertIn('"/$seq"', sessions)
        topics = source("gateway/dialect/native.c")
        for channel in document["channels"].values():
            for name in re.findall(r"^\$dg/([a-z/]+#?)", channel["address"]):
                self.assertIn(f'"{name}"', topics)
        errors = {name: int(code, 16) for name, code in
                  re.findall(r"X\((DG_ERR_\w+),\s+-\d+, (0x..)", source("common/err.h"))}
        for code, name, _ in document["x-reason-codes"]:
            self.assertEqual(errors.get(name, 0), code, name)
        sequence = document["components"]["schemas"]["sequence"]["pattern"]
        self.assertIn("{1,%s}" % re.search(r"LIMIT_PRODUCER_ID_BYTES (\d+)", source("common/limits.h"))[1], sequence)
        for example in document["x-examples"]:
            self.assertRegex(example["id"], sequence)

    def test_limits_are_those_of_the_source(self):
        with open(os.path.join(ROOT, "common/limits.h"), encoding="utf-8") as file:
            source = re.findall(r"#define (LIMIT_\w+) ([^/\n]+)", file.read().replace("\\\n", ""))
        with open(os.path.join(ROOT, "docs/limits.md"), encoding="utf-8") as file:
            text = file.read()
        units = {"KiB": 1024, "MiB": 1024 * 1024, "": 1}
        rows = re.findall(r"^\| `(LIMIT_\w+)` \| ([\d,]+) ?(\w*) \| [^|]+ \| [^|]+ \|$", text, re.M)
        documented = {name: int(number.replace(",", "")) * units[unit] for name, number, unit in rows}
        limits = {name: eval(re.sub(r"(\d)L+", r"\1", value)) for name, value in source}  # pylint: disable=eval-used
        self.assertEqual(documented, limits)
        with open(os.path.join(ROOT, "schemas/configuration.md"), encoding="utf-8") as file:
            reference = file.read()
        for key in re.findall(r"^\| `(\w+\.\w+)` \|", text, re.M):
            self.assertIn(f"`DURAGATE_CFG_{key.upper().replace('.', '__')}`", reference)

    def test_links_lead_somewhere(self):
        for name in ("README.md", "docs/architecture.md", "docs/limits.md", "docs/quotas.md", "docs/promise.md", "docs/upgrade.md",
                     "docs/quarantine.md", "docs/kafka.md", "docs/clients.md", "docs/devices.md", "docs/iothub.md", "docs/twins.md",
                     "docs/commands.md", "docs/iothub-service.md", "docs/jobs.md",
                     "deploy/examples/README.md",
                     "deploy/examples/flink-moving-average/README.md"):
            with open(os.path.join(ROOT, name), encoding="utf-8") as file:
                for link in re.findall(r"\]\(([^)#]+)\)", file.read()):
                    path = os.path.join(ROOT, os.path.dirname(name), link)
                    self.assertTrue(os.path.exists(path), f"{name}: {link}")

    def test_every_command_has_help(self):
        overview = run("--help")
        self.assertEqual(overview.returncode, 0)
        commands = re.findall(r"^  ([a-z-]+(?: [a-z-]+)?)", overview.stdout, re.M)
        self.assertGreater(len(commands), 20)
        for command in commands:
            done = run(*command.split(), "--help")
            self.assertEqual(done.returncode, 0, command)
            self.assertIn("usage: duragate " + command, done.stdout)

    def test_mistakes_are_named(self):
        for arguments, message in ((("nonsense",), "no command 'nonsense'"),
                                   (("tail", "--bogus"), "unknown option '--bogus'"),
                                   (("device", "show"), "expects DEVICE"),
                                   (("bench", "--qos", "7"), "whole number from 0 to 2")):
            done = run(*arguments)
            self.assertEqual(done.returncode, 64, arguments)
            self.assertIn(message, done.stderr)

    def test_completion_is_valid_and_complete(self):
        script = run("completion", "bash").stdout
        check = f"{script}\nCOMP_WORDS=(duragate device si); COMP_CWORD=2; _duragate; echo ${{COMPREPLY[*]}}"
        done = subprocess.run(["bash", "-c", check], capture_output=True, text=True, timeout=20, check=False)
        self.assertEqual(done.stdout.strip(), "simulate", done.stderr)


if __name__ == "__main__":
    unittest.main()
