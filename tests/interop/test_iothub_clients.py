"""Clients written for Azure IoT Hub, unmodified. They know one name and fixed ports: the tests of iothub/ run in a
network of their own, where the gateway has these ports and the name is known. Needs root."""

import os
import subprocess
import sys
import tempfile
import unittest

from clients import HERE, build_node, chosen, prepare

HOST = "iothub.localhost"
ENTER = 'ip link set lo up && mount --bind "$1" /etc/hosts && shift && exec "$@"'


@unittest.skipUnless(chosen("iothub"), "not chosen")
@unittest.skipUnless(os.geteuid() == 0, "a network of its own needs root")
class IotHub(unittest.TestCase):
    def test_clients(self):
        prepare(os.path.join(HERE, "iothub"), build_node)  # where there still is a network
        with tempfile.NamedTemporaryFile("w", prefix="duragate-hosts-") as hosts:
            hosts.write(f"127.0.0.1 localhost {HOST}\n")
            hosts.flush()
            os.chmod(hosts.name, 0o644)
            done = subprocess.run(
                ["unshare", "--net", "--mount", "bash", "-c", ENTER, "enter", hosts.name, sys.executable, "-m",
                 "unittest", "discover", "-v", "-s", os.path.join(HERE, "iothub"), "-p", "test_*.py"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200, check=False)
        sys.stderr.write(done.stdout)
        self.assertEqual(done.returncode, 0)


if __name__ == "__main__":
    unittest.main()
