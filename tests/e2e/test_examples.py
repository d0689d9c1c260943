"""deploy/examples: the alerts are the right ones, and the same after all is read again."""

import os
import re
import subprocess
import sys
import unittest

import moving_average
from harness import Gateway, ROOT

EXAMPLES = os.path.join(ROOT, "deploy/examples")


class Examples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()
        cls.keys = {device: cls.gateway.device(device) for device in moving_average.SERIES}

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def run_once(self, key, state):
        """The ids of the alerts that the program says it has published."""
        done = subprocess.run(
            [sys.executable, os.path.join(EXAMPLES, "moving_average.py"), "--once", "--state", state],
            env={**os.environ, **self.gateway.env, "DURAGATE_PROCESSOR": "averager", "DURAGATE_PROCESSOR_KEY": key},
            capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return sorted(re.findall(r'"id": "([^"]*)"', done.stdout))

    def test_it_says_what_is_missing_or_refused(self):
        good = {**os.environ, **self.gateway.env, "DURAGATE_PROCESSOR": "averager", "DURAGATE_PROCESSOR_KEY": "key"}
        for change, text in (({"DURAGATE_PROCESSOR": ""}, "not set: DURAGATE_PROCESSOR "),
                             ({"DURAGATE_KAFKA_PASSWORD": "wrong"}, "cannot log in: "),
                             ({"DURAGATE_KAFKA_PORT": "1"}, "cannot reach localhost:1: is the gateway running?"),
                             ({}, "the device averager cannot log in")):
            done = subprocess.run([sys.executable, os.path.join(EXAMPLES, "moving_average.py"), "--once"],
                                  env={**good, **change}, cwd=self.gateway.directory,
                                  capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(text, done.stderr)
            self.assertNotIn("Traceback", done.stderr)

    def test_moving_average(self):
        start = moving_average.start_time()
        key, state = self.gateway.device("averager"), os.path.join(self.gateway.directory, "state")
        moving_average.publish(self.gateway, start, self.keys)
        expected = moving_average.expected(start)
        self.assertEqual(self.run_once(key, state), expected)
        self.assertEqual(self.run_once(key, state), [], "what is done is done once")
        os.remove(state)
        self.assertEqual(self.run_once(key, state), expected, "a replay says the same")
        seen = moving_average.alerts(self.gateway, "averager")
        self.assertEqual({kind for kind, _, _ in seen}, {"duragate.event.v1"})
        self.assertEqual(sorted(alert["id"] for _, _, alert in seen), sorted(expected * 2))
        for _, _, alert in seen:
            self.assertGreater(alert["average"], alert["threshold"])
            self.assertEqual(alert["id"], f"{alert['device']}/{alert['window_end']}")


if __name__ == "__main__":
    unittest.main()
