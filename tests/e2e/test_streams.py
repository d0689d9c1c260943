"""Streams and consumer groups for whoever runs them: lag, reset, retention that overtakes, growth.

Groups are kcat's; what the API says is checked against its description.
"""

import json
import os
import re
import signal
import subprocess
import threading
import time
import unittest
import urllib.request

from contract import Contract
from harness import Gateway, wait_until
from test_groups import Consumer as Member


class Consumer(Member):
    """Key, partition and offset of each record beside its value; metadata once a second."""

    def __init__(self, gateway, group, *settings):
        super().__init__(gateway, group, "topic.metadata.refresh.interval.ms=1000", *settings)

    def records(self):
        """(partition, offset, value) of what the tests published."""
        rows = [line.split(" ", 2) for line in self.lines()]
        return [(int(row[0]), int(row[1]), row[2]) for row in rows if row[2].startswith("m")]

    def until(self, values, seconds=60):
        wait_until(lambda: {record[2] for record in self.records()} >= set(values), seconds)
        return self


WORKERS = {"DURAGATE_CFG_SERVER__WORKERS": "3"}  # a group's is seldom the one that is asked


class StreamTest(unittest.TestCase):
    settings = None  # those of a gateway of the class's own
    shared = None
    count = 0

    @classmethod
    def setUpClass(cls):
        if cls.settings is None and StreamTest.shared is None:
            StreamTest.shared = Gateway(settings=WORKERS).up()
        cls.gateway = Gateway(settings=cls.settings).up() if cls.settings else StreamTest.shared
        cls.contract = Contract()
        cls.tenant = "/v1/tenants/" + cls.gateway.TENANT

    @classmethod
    def tearDownClass(cls):
        if cls.settings:
            cls.gateway.close()

    def call(self, method, path, body=None, expect=200, key=None, tenant=None):
        """The body of an answer, which fits openapi.yaml; path below the tenant."""
        path = (tenant or self.tenant) + path
        status, parsed, headers = self.gateway.api(method, path, body, key=key)
        text = parsed if isinstance(parsed, str) else json.dumps(parsed)

        class Given:
            pass

        given = Given()
        given.status, given.body, given.headers, given.text = status, parsed, headers, text
        self.contract.check(method, path.split("?")[0], given)
        self.assertEqual(status, expect, (method, path, parsed))
        return parsed

    def cli(self, *arguments, code=0, text=None):
        """Output of `duragate stream ...`; of a refusal what it says."""
        done = subprocess.run([os.path.join(self.gateway.build, "duragate"), "stream", *arguments, "--env",
                               os.path.join(self.gateway.var, "demo.env")],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, code, (arguments, done.stdout, done.stderr))
        if text is not None:
            self.assertIn(text, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def values(self, count):
        StreamTest.count += count
        return [f"m{number}" for number in range(StreamTest.count - count, StreamTest.count)]

    def publish(self, count, device=None, key=None):
        values = self.values(count)
        for value in values:
            self.gateway.publish("-q", "1", "-t", "t", "-m", value, device=device, key=key)
        return values

    def group(self, name):
        return self.call("GET", "/consumer-groups/" + name)

    def listed(self, name):
        """The group in the list, which knows of it a moment later; None: not yet."""
        items = self.call("GET", "/consumer-groups?limit=1000")["items"]
        return next((item for item in items if item["group"] == name), None)

    def series(self, metric, **labels):
        """The value of one series; None when there is none."""
        with urllib.request.urlopen(self.gateway.HTTP_URL + "/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        wanted = "".join(f'{name}="{value}",' for name, value in labels.items()).rstrip(",")
        return next((int(line.rsplit(" ", 1)[1]) for line in lines
                     if line.startswith(f"{metric}{{{wanted}}} ")), None)

    def consumed(self, name, values):
        """A group that has read the values and stopped."""
        consumer = Consumer(self.gateway, name).until(values)
        consumer.stop()
        wait_until(lambda: self.group(name)["state"] == "Empty", 30)
        return consumer


def tearDownModule():
    if StreamTest.shared:
        StreamTest.shared.close()


class Streams(StreamTest):
    def test_topics_and_partitions(self):
        self.publish(6)
        streams = self.call("GET", "/streams")["items"]
        topic = self.gateway.TENANT + ".events"
        self.assertEqual([stream["name"].rpartition(".")[2] for stream in streams],
                         ["events", "commands", "audit", "quarantine"])
        self.assertEqual(streams[0]["name"], topic)
        partitions = self.call("GET", f"/streams/{topic}/partitions?limit=1000")["items"]
        self.assertEqual(len(partitions), streams[0]["partition_count"])
        self.assertGreaterEqual(sum(int(p["end_offset"]) for p in partitions), 6)
        self.assertGreaterEqual(int(streams[0]["records"]), 6)
        self.assertGreater(streams[0]["size_bytes"], 0)
        self.assertTrue(any(p["last_record_at"] for p in partitions))
        lines = self.cli("topics").splitlines()
        self.assertEqual(lines[0].split(), ["name", "stream_id", "partition_count", "records", "size_bytes"])
        self.assertEqual(lines[1].split()[0], topic)
        self.assertEqual(len(self.cli("partitions", "events").splitlines()), 1 + len(partitions))
        self.assertEqual(len(json.loads(self.cli("partitions", topic, "--json"))), len(partitions))
        for unknown in ("other.events", "event", "demo."):
            self.call("GET", f"/streams/{unknown}/partitions", expect=404)
        self.cli("partitions", "nonsense", code=1, text="no stream 'nonsense'")

    def test_pages(self):
        names = [f"page{number}" for number in range(5)]
        sent = self.publish(1)
        for consumer in [Consumer(self.gateway, name) for name in names]:
            consumer.until(sent).stop()
        seen, path = [], "/consumer-groups?limit=2"
        while path:
            page = self.call("GET", path)
            self.assertLessEqual(len(page["items"]), 2)
            seen += [item["group"] for item in page["items"]]
            path = page["next_cursor"] and "/consumer-groups?limit=2&cursor=" + page["next_cursor"]
        self.assertEqual(seen, sorted(set(seen)))
        self.assertLessEqual(set(names), set(seen))
        page = self.call("GET", "/streams/events/partitions?limit=10")
        rest = self.call("GET", f"/streams/events/partitions?limit=1000&cursor={page['next_cursor']}")
        self.assertEqual([p["partition"] for p in page["items"] + rest["items"]],
                         list(range(len(page["items"]) + len(rest["items"]))))
        self.assertIsNone(rest["next_cursor"])
        for query in ("limit=0", "cursor=nonsense", "cursor=OTk5OQ", "size=1"):
            self.call("GET", "/streams/events/partitions?" + query, expect=400)


class Lag(StreamTest):
    def test_it_goes_up_and_down(self):
        sent = self.publish(3)
        self.consumed("updown", sent)
        before = self.group("updown")
        self.assertEqual((before["state"], before["member_count"], before["members"]), ("Empty", 0, []))
        lag = int(before["lag"])
        sent = self.publish(7)
        after = self.group("updown")
        self.assertGreaterEqual(int(after["lag"]), lag + 7)
        self.assertEqual(after["overtaken_partitions"], 0)
        self.assertGreater(int(after["log_start_distance"]), 0)
        rows = [row for row in after["partitions"] if row["lag"] != "0"]
        for row in rows:
            self.assertEqual(int(row["end_offset"]) - int(row["committed_offset"]), int(row["lag"]))
            self.assertEqual(int(row["committed_offset"]) - int(row["log_start_offset"]),
                             int(row["log_start_distance"]))
        labels = {"tenant": self.gateway.TENANT, "group": "updown"}
        behind = "duragate_consumer_group_lag_records"
        wait_until(lambda: self.series(behind, **labels) == int(self.group("updown")["lag"]), 30)
        wait_until(lambda: self.listed("updown")["lag"] == self.group("updown")["lag"], 30)
        wait_until(lambda: self.listed("updown")["lag_seconds"] > 0, 30)
        wait_until(lambda: self.series("duragate_consumer_group_lag_seconds", **labels) > 0, 30)
        self.assertEqual(self.series("duragate_consumer_group_overtaken_partitions", **labels), 0)
        self.assertIn("updown", self.cli("lag"))
        self.assertEqual(len(self.cli("lag", "updown").splitlines()), 1 + len(after["partitions"]))
        consumer = Consumer(self.gateway, "updown", "auto.commit.interval.ms=200").until(sent)
        wait_until(lambda: self.group("updown")["lag"] == "0", 30)
        now = self.group("updown")
        self.assertEqual((now["state"], now["member_count"]), ("Stable", 1))
        member = now["members"][0]
        self.assertTrue(member["client_id"] and member["client_host"].startswith(("127.0.0.1", "[::1]")), member)
        self.assertTrue(all(row["member_id"] == member["member_id"] for row in now["partitions"]))
        self.assertEqual(len(now["partitions"]), 16, "assigned ones without a commit too")
        self.assertIn(member["member_id"][:20], self.cli("group", "updown"))
        wait_until(lambda: self.series(behind, **labels) == 0, 30)
        wait_until(lambda: self.listed("updown")["lag"] == "0" and self.listed("updown")["lag_seconds"] == 0, 30)
        consumer.stop()

    def test_streams_have_metrics(self):
        sent = self.publish(5)
        labels = {"tenant": self.gateway.TENANT, "stream": "events"}
        wait_until(lambda: (self.series("duragate_stream_appended_records_total", **labels) or 0) >= len(sent), 30)
        self.assertGreater(self.series("duragate_stream_size_bytes", **labels), 0)
        self.assertGreaterEqual(self.series("duragate_stream_records", **labels), len(sent))

    def test_after_a_restart(self):
        sent = self.publish(2)
        self.consumed("lasting-lag", sent)
        self.publish(3)
        lag = self.group("lasting-lag")["lag"]
        self.gateway.kill(signal.SIGKILL)
        self.gateway.up()
        self.assertGreaterEqual(int(self.group("lasting-lag")["lag"]), int(lag))
        wait_until(lambda: self.series("duragate_consumer_group_lag_records", tenant=self.gateway.TENANT,
                                       group="lasting-lag") == int(self.group("lasting-lag")["lag"]), 60)


class Reset(StreamTest):
    def reset(self, group, to, expect=200, **more):
        return self.call("POST", f"/consumer-groups/{group}/reset-offsets", {"stream": "events", "to": to, **more},
                         expect)

    def committed(self, group):
        return {row["partition"]: int(row["committed_offset"]) for row in self.group(group)["partitions"]}

    def test_to_earliest_replays(self):
        sent = self.publish(8)
        self.consumed("replaying", sent)
        before = self.committed("replaying")
        dry = self.reset("replaying", "earliest", dry_run=True)
        self.assertTrue(dry["dry_run"])
        self.assertEqual(self.committed("replaying"), before)
        self.assertIn("dry run", self.cli("reset", "replaying", "--to", "earliest", "--dry-run"))
        self.assertEqual(self.committed("replaying"), before)
        done = self.reset("replaying", "earliest")
        self.assertEqual({row["partition"]: row["offset_before"] for row in done["partitions"]},
                         {partition: str(before[partition]) if partition in before else None
                          for partition in range(16)})
        self.assertEqual(set(self.committed("replaying").values()), {0})
        self.gateway.kill(signal.SIGKILL)  # durable before the answer
        self.gateway.up()
        self.assertEqual(set(self.committed("replaying").values()), {0})
        again = self.consumed("replaying", sent)
        self.assertEqual([record[2] for record in again.records() if record[2] in sent], sent)

    def test_to_latest_an_offset_and_one_partition(self):
        self.consumed("moving", self.publish(4))
        self.cli("reset", "moving", "--to", "earliest")
        self.cli("reset", "moving", "--to", "latest", "--topic", self.gateway.TOPIC)
        self.assertEqual(self.group("moving")["lag"], "0")
        partition = max(self.committed("moving"), key=self.committed("moving").get)
        end = self.committed("moving")[partition]
        self.reset("moving", "1", partition=partition)
        self.assertEqual(self.group("moving")["lag"], str(end - 1))
        self.cli("reset", "moving", "--to", "2", "--partition", f"{self.gateway.TOPIC}/{partition}")
        self.assertEqual(self.committed("moving")[partition], 2)
        self.reset("moving", "9999999999")  # nearest that is kept
        self.assertEqual(self.group("moving")["lag"], "0")
        done = self.cli("reset", "moving", "--to", "9999999999", "--partition",
                        f"{self.gateway.TOPIC}/{partition}", text="1 of 1 partitions have no offset 9999999999")
        self.assertIn(str(end), done)

    def test_to_a_time_is_exact(self):
        early = self.publish(3)
        time.sleep(0.02)
        moment = time.time()
        late = self.publish(3)
        self.consumed("in-time", late)
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment * 1000) % 1000:03d}Z"
        self.assertIn("in-time", self.cli("reset", "in-time", "--to", text))
        again = self.consumed("in-time", late)
        self.assertFalse({record[2] for record in again.records()} & set(early))
        local = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment + 3600)) + "+01:00"
        self.reset("in-time", local)
        self.consumed("in-time", late)

    def test_only_while_nobody_reads(self):
        sent = self.publish(2)
        consumer = Consumer(self.gateway, "busy").until(sent)
        wait_until(lambda: self.group("busy")["state"] == "Stable", 30)
        for refused in (self.reset("busy", "earliest", 409), self.call("DELETE", "/consumer-groups/busy", expect=409)):
            self.assertIn("stop its consumers", refused["detail"])
        self.cli("reset", "busy", "--to", "earliest", code=1, text="'busy' has members; stop its consumers")
        self.cli("delete-group", "busy", code=1, text="'busy' has members")
        consumer.stop()
        wait_until(lambda: self.group("busy")["state"] == "Empty", 30)
        self.reset("busy", "earliest")
        self.call("DELETE", "/consumer-groups/busy", expect=204)
        self.call("GET", "/consumer-groups/busy", expect=404)
        self.call("DELETE", "/consumer-groups/busy", expect=404)
        self.reset("busy", "earliest", 404)
        self.cli("group", "busy", code=1, text="no such consumer group 'busy'")
        self.consumed("busy", sent)
        self.assertIn("group busy and its offsets are forgotten", self.cli("delete-group", "busy"))
        self.assertIsNone(self.listed("busy"))

    def test_what_is_refused(self):
        self.consumed("strict", self.publish(1))
        for body, text in (({}, "/stream: is required"), ({"stream": "events"}, "/to: is required"),
                           ({"stream": "events", "to": 5}, "/to"),
                           ({"stream": "other.events", "to": "latest"}, "/stream: there is no stream"),
                           ({"stream": "events", "to": "tomorrow"}, "/to: must be earliest, latest"),
                           ({"stream": "events", "to": "-1"}, "/to"), ({"stream": "events", "to": "+1"}, "/to"),
                           ({"stream": "events", "to": "99999999999999999999"}, "/to"),
                           ({"stream": "events", "to": "latest", "partition": 16}, "/partition"),
                           ({"stream": "events", "to": "latest", "extra": 1}, "/extra")):
            problem = self.call("POST", "/consumer-groups/strict/reset-offsets", body, 422)
            self.assertIn(text, problem["detail"])
        self.cli("reset", "strict", code=64, text="--to earliest, latest")
        self.cli("reset", "strict", "--to", "latest", "--partition", "3", code=64, text="it takes STREAM/N")
        self.cli("reset", "strict", "--to", "tomorrow", code=1, text="RFC 3339")

    def keys(self):
        return {role: self.call("POST", "/api-keys", {"roles": [role]}, 201)["bearer"]
                for role in ("reader", "operator", "consumer", "auditor", "commander")}

    def test_roles(self):
        """Readers see, who may consume moves: groups named audit. are the auditors', others the consumers'."""
        consumers = [Consumer(self.gateway, name) for name in ("private", "audit.private")]
        sent = self.publish(1)
        for consumer in consumers:
            consumer.until(sent).stop()
        for name in ("private", "audit.private"):
            wait_until(lambda: self.group(name)["state"] == "Empty", 30)
        both = {"private", "audit.private"}
        sees = {"reader": both, "operator": both, "consumer": {"private"}, "auditor": {"audit.private"}}
        moves = {"consumer": {"private"}, "auditor": {"audit.private"}}
        for role, key in self.keys().items():
            known = sees.get(role, set())
            self.call("GET", "/streams", key=key, expect=200 if known else 403)
            listed = self.call("GET", "/consumer-groups?limit=1000", key=key, expect=200 if known else 403)
            if known:
                self.assertEqual({item["group"] for item in listed["items"]} & both, known, role)
            for name in both:
                stream = "audit" if name.startswith("audit.") else "events"
                path = "/consumer-groups/" + name
                self.call("GET", path, key=key, expect=200 if name in known else 403)
                self.call("POST", path + "/reset-offsets", {"stream": stream, "to": "latest"}, key=key,
                          expect=200 if name in moves.get(role, ()) else 403)
                if name not in moves.get(role, ()):
                    self.call("DELETE", path, key=key, expect=403)
        consumer = self.keys()["consumer"]
        problem = self.call("POST", "/consumer-groups/private/reset-offsets", {"stream": "audit", "to": "latest"},
                            403, key=consumer)
        self.assertIn("may not read the stream", problem["detail"])

    def test_tenants_do_not_see_each_other(self):
        self.consumed("private", self.publish(1))
        body = {"stream": "events", "to": "latest"}
        other = "/v1/tenants/stranger"
        self.gateway.api("PUT", other, {})
        key = self.call("POST", "/api-keys", {"roles": ["admin"]}, 201, tenant=other)["bearer"]
        self.assertEqual(self.call("GET", "/consumer-groups", key=key, tenant=other)["items"], [])
        self.call("GET", "/consumer-groups/private", key=key, tenant=other, expect=404)
        self.call("DELETE", "/consumer-groups/private", key=key, tenant=other, expect=404)
        self.call("POST", "/consumer-groups/private/reset-offsets", body, 404, key=key, tenant=other)
        for method, path in (("GET", "/streams"), ("GET", "/streams/events/partitions"), ("GET", "/consumer-groups"),
                             ("GET", "/consumer-groups/private"), ("DELETE", "/consumer-groups/private")):
            self.call(method, path, key=key, expect=404)
        self.group("private")  # still there


class Overtaken(StreamTest):
    """Retention of seconds: what the group has not read is gone."""

    settings = {**WORKERS, "DURAGATE_CFG_STORAGE__RETENTION_TIME": "4s", "DURAGATE_CFG_STORAGE__SEGMENT_AGE": "1s"}

    def test_nobody_is_overtaken_unseen(self):
        consumer = Consumer(self.gateway, "late")
        published = []

        def has_read():
            published.extend(self.publish(1))
            return consumer.records()

        wait_until(has_read, 60)
        consumer.stop()
        self.assertEqual(self.group("late")["overtaken_partitions"], 0)
        self.publish(5)
        wait_until(lambda: self.group("late")["overtaken_partitions"] > 0, 60)
        group = self.group("late")
        self.assertLess(int(group["log_start_distance"]), 0)
        rows = [row for row in group["partitions"] if row["overtaken"]]
        self.assertTrue(rows)
        for row in rows:
            self.assertLess(int(row["committed_offset"]), int(row["log_start_offset"]))
            self.assertEqual(int(row["log_start_distance"]),
                             int(row["committed_offset"]) - int(row["log_start_offset"]))
        labels = {"tenant": self.gateway.TENANT, "group": "late"}
        wait_until(lambda: (self.series("duragate_consumer_group_overtaken_partitions", **labels) or 0) > 0, 30)
        self.assertLess(self.series("duragate_consumer_group_log_start_distance_records", **labels), 0)
        wait_until(lambda: self.listed("late")["overtaken_partitions"] > 0, 30)
        self.cli("lag", text="group late: retention removed records")
        self.cli("lag", "late", text="group late: retention removed records")
        self.assertIn("true", self.cli("lag", "late"))

        def told():
            return re.findall(r".*kafka\.group_overtaken.*", self.gateway.log())

        wait_until(lambda: any("group=late" in line and f"tenant={self.gateway.TENANT}" in line for line in told()), 30)
        self.assertLessEqual(len(told()), len(rows) + 1, "once, not once per look")
        self.cli("reset", "late", "--to", "earliest")
        self.assertEqual(self.group("late")["overtaken_partitions"], 0)


class Growth(StreamTest):
    """Partitions are added while devices publish and a group reads."""

    settings = WORKERS

    def test_nothing_is_lost_and_order_is_kept(self):
        devices = {name: self.gateway.device(name) for name in ("old0", "old1", "old2")}
        home = {name: self.call("GET", "/devices/" + name)["partition"] for name in devices}
        sent = {name: [] for name in devices}
        consumers = [Consumer(self.gateway, "growing") for _ in range(2)]
        for name, key in devices.items():
            sent[name] += self.publish(2, name, key)
        wait_until(lambda: self.read(consumers) >= set(sum(sent.values(), [])), 60)
        stop = threading.Event()
        errors = []

        def keep_publishing():
            number = 0
            try:
                while not stop.is_set():
                    for name, key in devices.items():
                        value = f"m-{name}-{number}"
                        self.gateway.publish("-q", "1", "-t", "t", "-m", value, device=name, key=key)
                        sent[name].append(value)
                    number += 1
            except Exception as error:  # told by the main thread
                errors.append(error)

        publisher = threading.Thread(target=keep_publishing)
        publisher.start()
        try:
            self.call("PATCH", "", {"partition_count": 40})
            wait_until(lambda: self.partitions_in_metadata() == 40, 30)
            grown = self.new_devices(16)
            for name, key in grown.items():
                sent[name] = self.publish(3, name, key)
                devices_home = self.call("GET", "/devices/" + name)["partition"]
                home[name] = devices_home
            wait_until(lambda: self.read(consumers) >= set(sum((sent[name] for name in grown), [])), 60)
        finally:
            stop.set()
            publisher.join()
        self.assertFalse(errors)
        wait_until(lambda: self.read(consumers) >= set(sum(sent.values(), [])), 60)
        for name in devices:
            self.assertEqual(self.call("GET", "/devices/" + name)["partition"], home[name])
        self.check_order(sent, home)
        for consumer in consumers:
            consumer.stop()
        rows = self.group("growing")["partitions"]
        self.assertTrue(any(row["partition"] >= 16 and row["committed_offset"] for row in rows),
                        "new partitions are committed by the connection that never asks for metadata")
        problem = self.call("PATCH", "", {"partition_count": 16}, 422)
        self.assertIn("may grow, not shrink", problem["detail"])

    def read(self, consumers):
        return {record[2] for consumer in consumers for record in consumer.records()}

    def partitions_in_metadata(self):
        listed = subprocess.run(["kcat", "-F", os.path.join(self.gateway.var, "kcat.conf"), "-L", "-J", "-t",
                                 self.gateway.TOPIC], capture_output=True, text=True, timeout=30, check=True)
        return len(json.loads(listed.stdout)["topics"][0]["partitions"])

    def new_devices(self, old_count):
        """Two of a new partition each."""
        found = {}
        for number in range(200):
            name = f"new{number}"
            key = self.gateway.device(name)
            if self.call("GET", "/devices/" + name)["partition"] >= old_count:
                found[name] = key
            if len(found) == 2:
                return found
        raise AssertionError("no device of a new partition")

    def check_order(self, sent, home):
        """In the log itself: each device's events in one partition, as they were published."""
        stored = [line.split(" ", 2) for line in self.gateway.consume(format="%p %k %s\\n").splitlines()]
        for name, values in sent.items():
            own = [(int(row[0]), row[2]) for row in stored if row[1] == name and row[2] in set(values)]
            self.assertEqual(own, [(home[name], value) for value in values], name)


if __name__ == "__main__":
    unittest.main()
