"""The gateway as Azure IoT Hub's clients find it: by a name, on the ports that they know. For tests that have a
network and a table of hosts of their own (test_iothub_clients.py beside this folder)."""

import json
import os
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(HERE)), "e2e"))

from clients import build_node, prepare  # noqa: E402
from harness import Gateway, wait_until  # noqa: E402

PORTS = {"mqtts": 8883, "https": 443}


class Hub(Gateway):
    """The name is IOTHUB_HOST."""

    def __init__(self, settings=None):
        super().__init__(settings=settings)
        self.ports.update(PORTS)
        with open(os.path.join(self.var, "ports"), "w", encoding="ascii") as file:
            file.writelines(f"port_{name}={port}\n" for name, port in self.ports.items())


class Driver:
    """A program of this folder that runs: what it says, line by line. Every wait ends, with its death at the latest."""

    def __init__(self, hub, program, **environment):
        directory = prepare(HERE, build_node)
        self.lines, self.read = [], 0
        self.process = subprocess.Popen(
            ["node", os.path.join(HERE, program)], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            env=dict(os.environ, NODE_PATH=os.path.join(directory, "node_modules"), NODE_EXTRA_CA_CERTS=hub.CA_FILE,
                     **environment))
        self.errors = ""
        self.readers = [threading.Thread(target=self.collect, daemon=True),
                        threading.Thread(target=self.collect_errors, daemon=True)]
        for reader in self.readers:
            reader.start()

    def collect(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def collect_errors(self):
        for line in self.process.stderr:
            self.errors += line

    def tell(self, *words):
        self.process.stdin.write(" ".join(word if isinstance(word, str) else json.dumps(word) for word in words) + "\n")
        self.process.stdin.flush()

    def hear(self, word, seconds=60):
        """What stands behind the word in the next line that begins with it; lines before are passed over, but for
        an error."""
        found = []

        def look():
            while self.read < len(self.lines):
                line = self.lines[self.read]
                self.read += 1
                if line.split(" ")[0] in (word, "error"):
                    found.append(line)
                    return True
            return self.process.poll() is not None and not any(reader.is_alive() for reader in self.readers)

        try:
            wait_until(look, seconds)
        except AssertionError:
            raise AssertionError(f"no {word}: {self.lines}\n{self.errors[-3000:]}") from None
        if not found or not found[0].startswith(word):
            raise AssertionError(f"{found or 'the end'}, not {word}: {self.lines}\n{self.errors[-3000:]}")
        return found[0][len(word) + 1:]

    def ask(self, *words, answer):
        self.tell(*words)
        return self.hear(answer)

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
        for reader in self.readers:
            reader.join(30)
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
