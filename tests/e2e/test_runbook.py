"""deploy/runbook.md, followed to the letter, with a real gateway, PostgreSQL, devices and consumers."""

import os
import re
import signal
import subprocess
import unittest

from harness import ROOT, Gateway, wait_until

NAMES = """
set -euo pipefail
export DURAGATE_VAR={var}
export PATH={build}:$PATH PGHOST={postgres} PGUSER=postgres
CONFIG={var}/duragate.yaml
STORE={var}/stream
BACKUPS={directory}/backups
MANAGEMENT={url}
stop_gateway() {{
    local pid
    pid=$(cat {var}/duragate.pid 2>/dev/null) || return 0
    kill -TERM "$pid"
    while [ -e "/proc/$pid/exe" ]; do sleep 0.05; done
}}
start_gateway() {{ {root}/deploy/up --build {build} >/dev/null; }}
as_gateway() {{ env -u PGUSER "$@"; }}
as_postgres() {{
    if [ "$(id -u)" = 0 ]; then (cd / && setpriv --reuid=postgres --regid=postgres --init-groups "$@"); else "$@"; fi
}}
aside() {{ mv "$1" "$1.$(date +%s%N)" && mkdir -m 700 "$1"; }}
"""


def blocks():
    """{heading: [commands of a block]} of the runbook."""
    with open(os.path.join(ROOT, "deploy/runbook.md"), encoding="utf-8") as file:
        text = file.read()
    found = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        heading, _, body = section.partition("\n")
        found[heading] = re.findall(r"^```sh\n(.*?)^```$", body, flags=re.M | re.S)
    return found


class Runbook(unittest.TestCase):
    def setUp(self):
        self.gateway = Gateway("release")
        self.addCleanup(self.gateway.close)
        self.gateway.up()
        self.blocks = blocks()
        self.keys = {self.gateway.DEVICE: self.gateway.DEVICE_KEY}

    def follow(self, heading, block=0, code=0):
        """Runs one block of a section; returns what it printed."""
        gateway = self.gateway
        names = NAMES.format(var=gateway.var, build=gateway.build, postgres=gateway.postgres_home(),
                             directory=gateway.directory, url=gateway.HTTP_URL, root=ROOT)
        done = subprocess.run(["bash", "-c", names + self.blocks[heading][block]], capture_output=True, text=True,
                              timeout=180, check=False)
        self.assertEqual(done.returncode, code, f"{heading}\n{done.stdout}{done.stderr}\n{gateway.log()[-2000:]}")
        return done.stdout + done.stderr

    def publish(self, text, device=None):
        device = device or self.gateway.DEVICE
        self.gateway.publish("-q", "1", "-t", "t", "-m", text, device=device, key=self.keys[device])

    def values(self):
        lines = self.gateway.consume(format="%h|%s\\n").splitlines()
        return [line.split("|", 1)[1] for line in lines if "ce_subject=t," in line]

    def consume_group(self, group, wanted):
        """What a member of the group reads until it has the wanted value; it commits."""
        seen = os.path.join(self.gateway.directory, "seen")
        with open(seen, "w", encoding="utf-8") as output:
            kcat = subprocess.Popen(
                ["kcat", "-F", os.path.join(self.gateway.var, "kcat.conf"), "-G", group, "-u", "-q", "-f", "%s\\n",
                 "-X", "auto.offset.reset=earliest", self.gateway.TOPIC], stdout=output, stderr=subprocess.DEVNULL)

        def read():
            with open(seen, encoding="utf-8") as file:
                return file.read().splitlines()

        try:
            wait_until(lambda: wanted in read(), 60)
        finally:
            kcat.send_signal(signal.SIGTERM)
            kcat.wait(30)
        return read()

    def new_tenant(self, name):
        status, body, _ = self.gateway.api("PUT", f"/v1/tenants/{name}", {})
        self.assertIn(status, (200, 201), body)
        return int(self.gateway.sql(f"select stream_id from tenant where name = '{name}'"))

    def tenant_event(self, tenant, text):
        key = self.gateway.device("d", tenant)
        subprocess.run(["mosquitto_pub", "-h", "localhost", "-p", self.gateway.MQTT_PORT, "-u", f"d@{tenant}", "-P", key,
                        "-i", "d", "-q", "1", "-t", "t", "-m", text], check=True, timeout=60)

    def tenant_reader(self, tenant):
        status, body, _ = self.gateway.api("POST", f"/v1/tenants/{tenant}/api-keys",
                                           {"key_id": f"reader-{tenant}", "roles": ["consumer"]})
        self.assertEqual(status, 201, body)
        done = subprocess.run(
            ["kcat", "-b", f"localhost:{self.gateway.KAFKA_PORT}", "-X", "security.protocol=SASL_PLAINTEXT", "-X",
             "sasl.mechanisms=PLAIN", "-X", f"sasl.username=reader-{tenant}", "-X", f"sasl.password={body['secret']}",
             "-C", "-t", f"{tenant}.events", "-o", "beginning", "-e", "-q", "-f", "%s\\n"],
            capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.splitlines()

    def test_restore_of_everything(self):
        self.publish("before")
        self.consume_group("g", "before")
        self.assertIn("registry:", self.follow("Every night"))
        self.publish("after")
        self.consume_group("g", "after")
        output = self.follow("Restore")
        self.assertNotIn("MISMATCH", output)
        self.assertIn("epoch", output)
        self.assertEqual(self.values(), ["before"])
        self.publish("new")
        self.assertEqual(self.consume_group("g", "new").count("before"), 0, "its committed offset was restored too")
        first = self.gateway.metric("duragate_stream_epoch")
        self.assertGreater(first, 0)
        self.follow("Restore")  # the same backup once more is another epoch
        self.assertGreater(self.gateway.metric("duragate_stream_epoch"), first)
        self.assertEqual(self.values(), ["before"])

    def test_lost_postgresql_gives_no_tenant_the_data_of_another(self):
        self.publish("before")
        self.follow("Every night")
        late = self.new_tenant("late")
        self.tenant_event("late", "secret of late")
        output = self.follow("Lost PostgreSQL")
        self.assertIn("MISMATCH the registry is older than the stream", output)
        self.assertIn("registry.behind_stream", self.gateway.log())
        self.assertEqual(self.values(), ["before"])
        self.assertGreater(self.new_tenant("fresh"), late)
        self.tenant_event("fresh", "of fresh")
        read = self.tenant_reader("fresh")
        self.assertIn("of fresh", read)
        self.assertNotIn("secret of late", "".join(read))
        self.assertIn("duragate_stream_epoch 0", self.follow("Mismatch"))

    def test_lost_stream(self):
        self.publish("before")
        self.follow("Every night")
        self.new_tenant("late")
        self.tenant_event("late", "gone")
        self.publish("after")
        output = self.follow("Lost stream")
        self.assertIn("MISMATCH the registry is newer than the stream", output)
        self.assertEqual(self.values(), ["before"])
        self.tenant_event_again()
        self.assertNotIn("gone", self.tenant_reader("late"))

    def tenant_event_again(self):
        """The tenant made since the backup is there, with an empty stream."""
        status, _, _ = self.gateway.api("DELETE", "/v1/tenants/late/devices/d")
        self.assertIn(status, (200, 204))
        self.tenant_event("late", "again")

    def test_damage(self):
        for number in range(40):
            self.publish(f"{number:04} " + "x" * 400)
        self.consume_group("g", "0039 " + "x" * 400)
        self.follow("Disk full")
        path = self.newest_segment()
        self.assertIn("needs no repair", self.follow("Damage"))
        with open(path, "r+b") as file:
            file.seek(9000)
            byte = file.read(1)
            file.seek(9000)
            file.write(bytes([byte[0] ^ 1]))
        self.assertIn("DAMAGE", self.follow("Damage", 0, code=74))
        self.assertIn("nothing was changed", self.follow("Damage", 1, code=74))
        self.assertIn("is whole", self.follow("Damage", 2))
        left = self.values()
        self.assertTrue(0 < len(left) < 40 and left[0].startswith("0000"), left)
        self.assertEqual(self.gateway.metric("duragate_stream_epoch"), 1)
        self.assertEqual(self.gateway.metric("duragate_kafka_offsets_beyond_end"), 1)
        self.publish("new")
        self.assertIn("new", self.consume_group("g", "new"), "out of range, it went on as auto.offset.reset says")

    def newest_segment(self):
        store = os.path.join(self.gateway.var, "stream")
        paths = [os.path.join(top, name) for top, _, names in os.walk(store) for name in names if name.endswith(".log")]
        return max(paths, key=os.path.getsize)


if __name__ == "__main__":
    unittest.main()
