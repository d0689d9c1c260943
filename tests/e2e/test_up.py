"""deploy/up: what it refuses, what it repairs, what it leaves alone."""

import os
import shutil
import signal
import subprocess
import tempfile
import unittest

from harness import ROOT, Gateway, wait_until


class Up(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(own_ports=False).up()

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def run_up(self, *arguments):
        return subprocess.run([os.path.join(ROOT, "deploy/up"), "--build", self.gateway.build, *arguments],
                              env=self.gateway.environment, capture_output=True, text=True, timeout=180, check=False)

    def read(self, name):
        with open(os.path.join(self.gateway.var, name), encoding="utf-8") as file:
            return file.read()

    def test_help_is_whole(self):
        for command in ("deploy/up", "tests/run"):
            done = subprocess.run([os.path.join(ROOT, command), "--help"], capture_output=True, text=True, timeout=20,
                                  check=True)
            with open(os.path.join(ROOT, command), encoding="utf-8") as file:
                comment = [line[2:] for line in file.read().split("\nset -")[0].splitlines()[1:]]
            self.assertEqual(done.stdout.splitlines(), comment, command)

    def test_an_address_of_another_machine_is_refused_and_forgotten(self):
        before = self.read("options")
        for address, why in (("203.0.113.9", "no such address"), ("127.0.0.1", "always listened on"), ("", "needs an")):
            done = self.run_up("--listen", address)
            self.assertEqual(done.returncode, 69, address)
            self.assertIn(why, done.stderr)
        self.assertEqual(self.read("options"), before)

    def test_credentials_survive_a_killed_postgres(self):
        before = self.read("demo.env")
        data = os.path.join(self.gateway.postgres_home(), "data/postmaster.pid")
        with open(data, encoding="ascii") as file:
            pid = int(file.readline())
        os.kill(pid, signal.SIGKILL)

        def is_gone():
            try:
                with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                    return file.read().rsplit(")", 1)[1].split()[0] == "Z"
            except FileNotFoundError:
                return True

        wait_until(is_gone, 30)
        done = self.run_up()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.read("demo.env"), before)
        self.gateway.publish("-q", "1", "-t", "still", "-m", "here")

    def test_another_build_takes_the_place_of_the_running_one(self):
        pid = self.gateway.pid()
        self.assertEqual(self.run_up().returncode, 0)
        self.assertEqual(self.gateway.pid(), pid, "started anew without a reason")
        other = os.path.join(self.gateway.directory, "other")
        os.mkdir(other)
        shutil.copy(os.path.join(self.gateway.build, "duragate"), other)
        self.gateway.build = other
        self.assertEqual(self.run_up().returncode, 0)
        self.assertNotEqual(self.gateway.pid(), pid, "the build before still runs")

    def test_a_running_gateway_is_seen_without_looking_at_its_executable(self):
        """Which the kernel shows to root only, since the process may hold keys."""
        with tempfile.TemporaryDirectory() as var:
            os.chmod(var, 0o755)
            shutil.copy(self.gateway.PID_FILE, var)
            shutil.copy(os.path.join(ROOT, "deploy/demo.sh"), var)
            for name in os.listdir(var):
                os.chmod(os.path.join(var, name), 0o644)
            user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
            look = [*user, "bash", "-c", 'root=$1 var=$1; . "$1/demo.sh"; demo_gateway_running', "bash", var]
            self.assertEqual(subprocess.run(look, cwd="/", timeout=20, check=False).returncode, 0)
            with open(os.path.join(var, "duragate.pid"), "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
            self.assertNotEqual(subprocess.run(look, cwd="/", timeout=20, check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main()
