"""Commands over HTTP: what is refused, what a key makes idempotent, waiting, cancelling, listing, and an away PostgreSQL."""

import base64
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import unittest
import urllib.parse

import jsonschema

from called_device import CalledDevice, acknowledge, subscribe
from contract import Contract
from harness import ROOT, Gateway, wait_until
from raw_mqtt import PUBACK
from test_api import ApiTest
from test_registry import postgres_pids

with open(os.path.join(ROOT, "schemas/events/command.v1.schema.json"), encoding="utf-8") as schema:
    EVENT = json.load(schema)


class CommandsApi(ApiTest):
    SETTINGS = {"DURAGATE_CFG_SERVER__WORKERS": "2"}

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings=cls.SETTINGS).up()
        cls.addClassCleanup(cls.gateway.close)
        cls.contract = Contract()
        cls.host = urllib.parse.urlsplit(cls.gateway.HTTP_URL).netloc
        cls.names = 0

    @classmethod
    def tearDownClass(cls):
        pass

    def away(self):
        """The path of a device that is not connected; its key."""
        name = self.name("device")
        key = self.gateway.device(name)
        return f"/v1/tenants/{self.gateway.TENANT}/devices/{name}", key

    def connected(self, path, key, **more):
        device = CalledDevice(self.gateway, path.rsplit("/", 1)[1], key=key, **more)
        self.addCleanup(device.socket.close)
        return device

    def post(self, path, body=None, query="", expect=202, **headers):
        return self.call("POST", path + "/commands" + query, body or {"name": "reboot"}, expect, **headers)

    def queue(self, path, **body):
        """The path of a new command."""
        return self.post(path, {"name": "reboot", **body}).headers["Location"]

    def state(self, command):
        return self.call("GET", command, expect=200).body["state"]

    def events(self, command):
        """States of a command, in the order of the stream; each event is as its schema has it."""
        id, found = command.rsplit("/", 1)[1], []
        for line in self.gateway.consume(topic=f"{self.gateway.TENANT}.commands", format="%k|%h|%s\\n").splitlines():
            key, headers, payload = line.split("|", 2)
            event = json.loads(payload)
            jsonschema.validate(event, EVENT)
            self.assertIn(f"ce_type=duragate.command.{event['state']}.v1,", headers)
            self.assertIn(f"/devices/{key},", headers)
            self.assertIn(f",ce_subject={event['command_id']},content-type=application/json", headers)
            if event["command_id"] == id:
                found.append(event["state"])
        return found


class Creating(CommandsApi):
    def test_what_it_looks_like(self):
        path, _ = self.away()
        body = {"name": "set.config", "payload": {"b": [1.50, None], "a": "ü"}, "ttl_s": 60, "wants_reply": False,
                "properties": {"trace": "x", "Ü": ""}}
        answer = self.post(path, body, Idempotency_Key="key 1")
        command = answer.body
        self.assertEqual(answer.headers["Location"], f"{path}/commands/{command['command_id']}")
        for member, value in {**body, "state": "queued", "delivery_count": 0, "content_type": "application/json",
                              "idempotency_key": "key 1", "reply": None, "reason": None, "sent_at": None}.items():
            if member != "ttl_s":
                self.assertEqual(command[member], value, member)
        self.assertIn('"payload":{"b":[1.5,null],"a":"ü"}', answer.text)
        self.assertEqual(self.call("GET", answer.headers["Location"], expect=200).body, command)
        instants = [time.mktime(time.strptime(command[name][:19], "%Y-%m-%dT%H:%M:%S"))
                    for name in ("created_at", "expires_at")]
        self.assertEqual(instants[1] - instants[0], 60)

    def test_payloads(self):
        path, _ = self.away()
        for body, type, member, value in (
                ({"payload": None}, "application/json", "payload", None),
                ({"payload": "text"}, "application/json", "payload", "text"),
                ({"payload": 17, "content_type": "text/x"}, "text/x", "payload", 17),
                ({}, None, "payload", None),
                ({"payload_base64": ""}, "application/octet-stream", "payload", None),
                ({"payload_base64": "MQ=="}, "application/octet-stream", "payload", 1),
                ({"payload_base64": "//4A"}, "application/octet-stream", "payload_base64", "//4A")):
            with self.subTest(body=body):
                made = self.post(path, {"name": "x", **body}).body
                self.assertEqual((made["content_type"], made[member]), (type, value))
                self.assertEqual(self.call("GET", f"{path}/commands/{made['command_id']}", expect=200).body, made)

    def test_the_largest(self):
        path, key = self.away()
        content = os.urandom(64 * 1024)
        properties = {"p" * 128: "v" * (7 * 1024 - 128 - 7)}
        body = {"name": "n" * 64, "payload_base64": base64.b64encode(content).decode(), "properties": properties,
                "content_type": "t/" + "y" * 254}
        command = self.queue(path, **body)
        shown = self.call("GET", command, expect=200).body
        self.assertEqual({name: shown[name] for name in body}, body)
        device = self.connected(path, key, qos=None)
        device.send(subscribe(1, 5, 268435455))
        device.read()
        first, packet = device.read()
        self.assertEqual(packet[-len(content):], content)
        self.assertIn(b"p" * 128 + b"\x1b\x79" + b"v" * 7033, packet)
        self.assertIn(b"$dg/replies/", packet)
        self.refused(413, "/payload_base64", "POST", path + "/commands",
                     {"name": "x", "payload_base64": base64.b64encode(content + b"x").decode()})
        self.refused(413, "/payload: a payload may have at most 65536 bytes, this one has 65537", "POST",
                     path + "/commands", {"name": "x", "payload": "x" * (64 * 1024 - 1)})
        self.refused(413, "262144", "POST", path + "/commands", {"name": "x", "payload": "x" * (256 * 1024)})

    def test_refused(self):
        path, _ = self.away()
        commands = path + "/commands"
        for pointer, body in (
                ("/name: is required", {"payload": 1}),
                ("/name", {"name": "a/b"}), ("/name", {"name": ""}), ("/name", {"name": "a" * 65}),
                ("/name", {"name": "+"}), ("/name", {"name": None}),
                ("/payloud: no such member", {"name": "x", "payloud": 1}),
                ("/payload_base64: there is /payload already", {"name": "x", "payload": 1, "payload_base64": "MQ=="}),
                ("/payload_base64: must be base64", {"name": "x", "payload_base64": "MQ"}),
                ("/payload_base64", {"name": "x", "payload_base64": "MQ==\n"}),
                ("/payload_base64", {"name": "x", "payload_base64": "MR=="}),
                ("/payload_base64", {"name": "x", "payload_base64": "M=Q="}),
                ("/payload_base64", {"name": "x", "payload_base64": " MQ="}),
                ("/payload_base64", {"name": "x", "payload_base64": "===="}),
                ("/payload_base64", {"name": "x", "payload_base64": "-_-_"}),
                ("/payload_base64", {"name": "x", "payload_base64": 7}),
                ("/content_type", {"name": "x", "content_type": ""}),
                ("/content_type", {"name": "x", "content_type": "a/" + "b" * 255}),
                ("/ttl_s", {"name": "x", "ttl_s": 0}), ("/ttl_s", {"name": "x", "ttl_s": 2592001}),
                ("/ttl_s", {"name": "x", "ttl_s": 1.5}), ("/ttl_s", {"name": "x", "ttl_s": None}),
                ("/wants_reply", {"name": "x", "wants_reply": "no"}),
                ("/properties: must be an object of strings", {"name": "x", "properties": []}),
                ("/properties/a: must be a string", {"name": "x", "properties": {"a": 1}}),
                ("/properties/", {"name": "x", "properties": {"": "x"}}),
                ("/properties: must have at most 7168", {"name": "x", "properties": {"a": "x" * 7200}})):
            with self.subTest(body=str(body)[:80]):
                answer = self.refused(422, pointer, "POST", commands, body)
                self.assertTrue(answer.detail.startswith(pointer), answer.detail)
        for body in (b"", b"[]", b'{"name":"x","name":"y"}', b'{"name":"x\\u0000"}', b'{"name":"x","payload":' +
                     b"[" * 16 + b"]" * 16 + b"}"):
            self.refused(400, "", "POST", commands, body)
        self.refused(415, "application/json", "POST", commands, {"name": "x"}, Content_Type="text/plain")
        for query, text in (("wait=done", "wait: must be one of: queued sent"), ("wait=", "wait"),
                            ("timeout=5", "timeout: says how long"), ("wait=sent&timeout=0", "1 to 300 seconds"),
                            ("wait=sent&timeout=301", "1 to 300"), ("wait=sent&timeout=x", "1 to 300"),
                            ("wiat=sent", "wiat: not known; there are wait and timeout"),
                            ("wait=sent&wait=sent", "given twice")):
            self.refused(400, text, "POST", f"{commands}?{query}", {"name": "x"})
        for key in ("", "k" * 129, "ü".encode().decode("latin-1"), "a\tb"):
            self.refused(400, "Idempotency-Key", "POST", commands, {"name": "x"}, Idempotency_Key=key)
        self.assertEqual(self.call("GET", commands, expect=200).body["items"], [])

    def test_unknown(self):
        path, _ = self.away()
        gone = path + "x"
        self.refused(404, "no device", "POST", gone + "/commands", {"name": "x"})
        self.refused(404, "nothing here", "GET", gone + "/commands")
        for id in ("c1", "c0", "c", "x", "c01", "c99999999999999999999", "1"):
            for method in ("GET", "DELETE"):
                self.refused(404, "no such command", method, f"{path}/commands/{id}")
        other, _ = self.away()
        command = self.queue(path)
        moved = command.replace(path, other)
        self.refused(404, "no such command", "GET", moved)
        self.refused(404, "no such command", "DELETE", moved)
        self.assertEqual(self.state(command), "queued")

    def test_too_many(self):
        path, _ = self.away()
        key = self.gateway.sql(f"select device_key from device where device_id = '{path.rsplit('/', 1)[1]}'")
        self.gateway.sql("insert into command (tenant_key, device_key, name, payload, wants_reply, expires_at) select "
                         f"tenant_key, device_key, 'x', '', true, now() + interval '1 h' from device, "
                         f"generate_series(1, 999) where device_key = {key}")
        last = self.queue(path)
        answer = self.refused(429, "1000 commands wait for device", "POST", path + "/commands", {"name": "x"})
        self.assertEqual(answer.headers["Retry-After"], "60")
        self.call("DELETE", last, expect=204)
        self.queue(path)

    def test_roles_and_tenants(self):
        path, _ = self.away()
        command = self.queue(path)
        tenant = path.rsplit("/devices", 1)[0]
        keys = {role: self.api_key(tenant, role)["bearer"]
                for role in ("admin", "operator", "reader", "consumer", "auditor", "commander")}
        for role, key in keys.items():
            reads = 200 if role in ("admin", "operator", "reader", "commander") else 403
            writes = role in ("admin", "commander")
            self.call("GET", path + "/commands", expect=reads, key=key)
            self.call("GET", command, expect=reads, key=key)
            self.call("POST", path + "/commands", {"name": "x"}, 202 if writes else 403, key=key)
            self.call("DELETE", self.queue(path), expect=204 if writes else 403, key=key)
        stranger = self.api_key(self.tenant(), "admin")["bearer"]
        for method in ("GET", "DELETE"):
            self.call(method, command, expect=404, key=stranger)
        self.call("POST", path + "/commands", {"name": "x"}, 404, key=stranger)
        self.call("GET", path + "/commands", expect=404, key=stranger)


class Idempotency(CommandsApi):
    def test_again(self):
        path, key = self.away()
        first = self.post(path, {"name": "reboot", "payload": [1]}, Idempotency_Key="k")
        again = self.post(path, {"name": "reboot", "payload": [1]}, Idempotency_Key="k")
        self.assertEqual((again.body, again.headers["Location"]), (first.body, first.headers["Location"]))
        self.assertEqual(self.post(path, {"name": "reboot", "payload": [1], "ttl_s": 9}, "?wait=queued", 200,
                                   Idempotency_Key="k").body, first.body)
        other, _ = self.away()
        self.assertNotEqual(self.post(other, Idempotency_Key="k").body["command_id"], first.body["command_id"])
        for body in ({"name": "other", "payload": [1]}, {"name": "reboot", "payload": [2]}, {"name": "reboot"},
                     {"name": "reboot", "payload": [1], "wants_reply": False},
                     {"name": "reboot", "payload": [1], "content_type": "text/json"},
                     {"name": "reboot", "payload": [1], "properties": {"a": "b"}}):
            self.refused(422, "Idempotency-Key: command " + first.body["command_id"], "POST", path + "/commands", body,
                         Idempotency_Key="k")
        device = self.connected(path, key)
        received = device.called()
        device.acknowledged(received)
        device.reply(received)
        done = self.post(path, {"name": "reboot", "payload": [1]}, "?wait=completed", 200, Idempotency_Key="k").body
        self.assertEqual((done["state"], done["reply"]),
                         ("completed", {"status": 200, "content_type": None, "payload": {"ok": True}}))
        self.assertEqual(len(self.call("GET", path + "/commands").body["items"]), 1)

    def test_at_the_same_time(self):
        path, _ = self.away()
        for key in ("a", "b", "c", "d", "e", "f"):
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: self.post(path, Idempotency_Key=key), range(8)))
            self.assertEqual(len({answer.body["command_id"] for answer in answers}), 1)
        self.assertEqual(len(self.call("GET", path + "/commands").body["items"]), 6)


class Waiting(CommandsApi):
    def begin(self, *arguments, **more):
        pool = concurrent.futures.ThreadPoolExecutor(1)
        self.addCleanup(pool.shutdown)
        return pool.submit(self.post, *arguments, **more)

    def test_each_state_of_a_connected_device(self):
        for qos in (0, 1, 2):
            path, key = self.away()
            device = self.connected(path, key, qos=qos)
            for wanted in ("queued", "sent", "delivered", "completed"):
                with self.subTest(qos=qos, wanted=wanted):
                    waiting = self.begin(path, {"name": "x", "payload": 1}, f"?wait={wanted}", 200)
                    received = device.called()
                    if wanted in ("queued", "sent"):
                        self.assertIn(waiting.result(30).body["state"], ("queued", "sent"))
                    device.acknowledged(received)
                    if wanted == "delivered" and qos > 0:
                        self.assertEqual(waiting.result(30).body["state"], "delivered")
                    device.reply(received, 204, b"")
                    body = waiting.result(30).body
                    if wanted == "completed":
                        self.assertEqual((body["state"], body["delivery_count"], body["reply"]), (
                            "completed", 1, {"status": 204, "content_type": None, "payload": None}))
                        self.assertLessEqual(body["sent_at"], body["delivered_at"])
                        self.assertLessEqual(body["delivered_at"], body["finished_at"])

    def test_a_device_that_comes_later(self):
        path, key = self.away()
        waiting = self.begin(path, None, "?wait=completed&timeout=60", 200)
        wait_until(lambda: self.call("GET", path + "/commands").body["items"], 20)
        self.assertFalse(waiting.done())
        device = self.connected(path, key)
        received = device.called()
        device.acknowledged(received)
        device.reply(received, 500, b"\xff")
        body = waiting.result(30).body
        self.assertEqual((body["state"], body["reply"]),
                         ("rejected", {"status": 500, "content_type": None, "payload_base64": "/w=="}))

    def test_the_time_is_over(self):
        path, key = self.away()
        answer = self.post(path, None, "?wait=sent&timeout=1", 202)
        self.assertEqual(answer.body["state"], "queued")
        device = self.connected(path, key)
        device.acknowledged(device.called())
        answer = self.post(path, None, "?wait=completed&timeout=1", 202)
        self.assertEqual(answer.body["state"], "sent")
        command = answer.headers["Location"]
        received = device.called()
        device.acknowledged(received)
        device.reply(received)
        wait_until(lambda: self.state(command) == "completed", 20)

    def test_its_end_instead(self):
        path, key = self.away()
        waiting = self.begin(path, {"name": "x", "ttl_s": 1}, "?wait=completed&timeout=60", 200)
        self.assertEqual(waiting.result(30).body["state"], "expired")
        waiting = self.begin(path, None, "?wait=delivered&timeout=60", 200)
        wait_until(lambda: self.call("GET", path + "/commands?state=queued").body["items"], 20)
        self.call("DELETE", self.call("GET", path + "/commands?state=queued").body["items"][0]["command_id"].join(
            (path + "/commands/", "")), expect=204)
        self.assertEqual(waiting.result(30).body["state"], "cancelled")
        device = self.connected(path, key)
        waiting = self.begin(path, None, "?wait=completed&timeout=60", 200)
        device.send(acknowledge(PUBACK, device.called().packet_id, 0x83))
        body = waiting.result(30).body
        self.assertEqual((body["state"], body["reply"]), ("rejected", None))
        self.assertIn("refused", body["reason"])
        waiting = self.begin(path, {"name": "x", "wants_reply": False}, "?wait=completed", 200)
        device.acknowledged(device.called())
        self.assertEqual(waiting.result(30).body["state"], "completed")
        silent = self.connected(*self.away(), qos=0)
        waiting = self.begin(path.rsplit("/", 1)[0] + "/" + silent.name, {"name": "x", "wants_reply": False},
                             "?wait=completed", 200)
        silent.called()
        self.assertEqual(waiting.result(30).body["state"], "sent")  # over QoS 0 nobody knows more

    def test_one_connection_for_one_after_the_other(self):
        """What an earlier request waited for in vain does not end the wait of a later one."""
        path, key = self.away()
        device = self.connected(path, key)
        client = socket.create_connection(("127.0.0.1", int(self.host.split(":")[1])), timeout=30)
        self.addCleanup(client.close)
        received = []
        for timeout in (1, 60):
            body = b'{"name":"x"}'
            client.sendall(f"POST {path}/commands?wait=completed&timeout={timeout} HTTP/1.1\r\nHost: x\r\n"
                           f"Authorization: Bearer {self.gateway.API_KEY}\r\nContent-Type: application/json\r\n"
                           f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            received.append(device.called())
            device.acknowledged(received[-1])
            if timeout == 1:
                self.assertIn(b"202 Accepted", client.recv(65536))
        device.reply(received[0])
        wait_until(lambda: self.state(f"{path}/commands/{received[0].id}") == "completed", 20)
        client.settimeout(1)
        with self.assertRaises(TimeoutError):
            client.recv(65536)
        device.reply(received[1], packet_id=8)
        client.settimeout(30)
        answer = client.recv(65536)
        self.assertIn(b"200 OK", answer)
        self.assertIn(received[1].id.encode(), answer)

    def test_many_wait_for_one(self):
        """More than are told at once: the rest looks by itself."""
        path, key = self.away()
        device = self.connected(path, key)
        command = self.post(path, Idempotency_Key="one").headers["Location"]
        received = device.called()
        device.acknowledged(received)
        wait_until(lambda: self.state(command) == "delivered", 20)
        with concurrent.futures.ThreadPoolExecutor(90) as pool:
            waiting = [pool.submit(self.call, "POST", path + "/commands?wait=completed&timeout=60", {"name": "reboot"},
                                   check=False, Idempotency_Key="one") for _ in range(90)]
            wait_until(lambda: sum(w.running() for w in waiting) == 90 or any(w.done() for w in waiting), 20)
            device.reply(received)
            answers = [w.result(60) for w in waiting]
        self.assertLessEqual({answer.status for answer in answers}, {200, 429}, answers[0].text)
        self.assertGreater([answer.status for answer in answers].count(200), 30)

    def test_a_caller_that_goes_takes_nothing_back(self):
        path, key = self.away()
        client = socket.create_connection(("127.0.0.1", int(self.host.split(":")[1])), timeout=30)
        body = b'{"name":"x"}'
        client.sendall(f"POST {path}/commands?wait=completed&timeout=300 HTTP/1.1\r\nHost: x\r\n"
                       f"Authorization: Bearer {self.gateway.API_KEY}\r\nContent-Type: application/json\r\n"
                       f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: self.call("GET", path + "/commands").body["items"], 20)
        open_before = self.gateway.metric('duragate_connections{protocol="http"}')
        client.close()
        wait_until(lambda: self.gateway.metric('duragate_connections{protocol="http"}') < open_before, 20)
        device = self.connected(path, key)
        received = device.called()
        device.acknowledged(received)
        device.reply(received)
        wait_until(lambda: self.state(f"{path}/commands/{received.id}") == "completed", 20)

    def test_the_device_goes_for_good(self):
        path, _ = self.away()
        waiting = self.begin(path, None, "?wait=sent&timeout=60", 404)
        wait_until(lambda: self.call("GET", path + "/commands").body["items"], 20)
        self.call("DELETE", path, expect=204)
        self.assertIn("has gone", waiting.result(30).detail)


class Cancelling(CommandsApi):
    def test_before_and_after_delivery(self):
        path, key = self.away()
        cancelled, kept = self.queue(path), self.queue(path)
        self.call("DELETE", cancelled, expect=204)
        shown = self.call("GET", cancelled, expect=200).body
        self.assertEqual((shown["state"], shown["sent_at"], shown["reason"]), ("cancelled", None, None))
        self.assertIsNotNone(shown["finished_at"])
        self.refused(409, "its state is cancelled", "DELETE", cancelled)
        device = self.connected(path, key)
        received = device.called()
        self.assertEqual(received.id, kept.rsplit("/", 1)[1])
        self.refused(409, "a gateway is delivering it", "DELETE", kept)
        device.acknowledged(received)
        wait_until(lambda: self.state(kept) == "delivered", 20)
        self.refused(409, "delivering it to the device (its state is delivered)", "DELETE", kept)
        self.assertEqual(device.reply(received), 0)
        wait_until(lambda: self.state(kept) == "completed", 20)
        self.refused(409, "its state is completed", "DELETE", kept)
        wait_until(lambda: self.events(cancelled) == ["queued", "cancelled"], 20)
        wait_until(lambda: self.events(kept) == ["queued", "sent", "delivered", "completed"], 20)
        self.assertGreaterEqual(self.gateway.metric('duragate_commands_total{state="cancelled"}'), 1)
        wait_until(lambda: self.gateway.sql("select count(*) from stream_outbox") == "0", 20)

    def test_what_the_device_has_after_a_restart(self):
        """Nobody holds it any more; the device does, and may be at it."""
        path, key = self.away()
        device, command = self.connected(path, key), self.queue(path)
        received = device.called()
        device.acknowledged(received)
        wait_until(lambda: self.state(command) == "delivered", 20)
        self.gateway.kill()
        self.gateway.up()
        id = received.id[1:]
        wait_until(lambda: self.gateway.sql(f"select holder is null from command where command_key = {id}") == "t", 20)
        self.refused(409, "its state is delivered", "DELETE", command)
        self.assertEqual(self.connected(path, key).reply(received), 0)
        wait_until(lambda: self.state(command) == "completed", 20)

    def test_what_came_back_unacknowledged(self):
        path, key = self.away()
        device = self.connected(path, key)
        command = self.queue(path)
        device.called()
        device.socket.close()
        wait_until(lambda: self.call("DELETE", command).status == 204, 20)
        again = self.connected(path, key)
        later = self.queue(path)
        self.assertEqual(again.called().id, later.rsplit("/", 1)[1])
        wait_until(lambda: self.events(command) == ["queued", "sent", "cancelled"], 20)

    def test_at_the_same_time_as_a_device_comes(self):
        """Either it is cancelled and never seen, or delivered and not cancelled."""
        path, key = self.away()
        for _ in range(10):
            command = self.queue(path)
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                status = pool.submit(self.call, "DELETE", command)
                device = self.connected(path, key)
                status = status.result(30).status
            mark = self.queue(path)
            first = device.called()
            if status == 409:
                self.assertEqual(first.id, command.rsplit("/", 1)[1])
                device.acknowledged(first)
                device.reply(first, qos=0)
                first = device.called()
            else:
                self.assertEqual(status, 204)
            self.assertEqual(first.id, mark.rsplit("/", 1)[1])
            device.acknowledged(first)
            device.reply(first, qos=0)
            wait_until(lambda: self.state(mark) == "completed", 20)
            device.socket.close()
            wait_until(lambda: not self.call("GET", path).body["connection"]["connected"], 20)


class Listing(CommandsApi):
    def test_pages_and_states(self):
        path, key = self.away()
        made = [self.queue(path, payload="x" * 1000).rsplit("/", 1)[1] for _ in range(7)]
        self.call("DELETE", f"{path}/commands/{made[2]}", expect=204)
        page = self.call("GET", path + "/commands?limit=3", expect=200).body
        found = page["items"]
        while page["next_cursor"]:
            page = self.call("GET", f"{path}/commands?limit=3&cursor={page['next_cursor']}", expect=200).body
            found += page["items"]
        self.assertEqual([item["command_id"] for item in found], made)
        self.assertNotIn("payload", found[0])
        states = [("cancelled", made[2:3]), ("queued", made[:2] + made[3:]), ("sent", [])]
        for state, ids in states:
            items = self.call("GET", f"{path}/commands?state={state}", expect=200).body["items"]
            self.assertEqual([item["command_id"] for item in items], ids)
        self.refused(400, "state: must be one of: queued", "GET", path + "/commands?state=done")
        self.refused(400, "there are limit, cursor and state", "GET", path + "/commands?enabled=true")
        self.refused(400, "state: not known", "GET", path.rsplit("/", 1)[0] + "?state=queued")
        forged = base64.urlsafe_b64encode(b"not a key").decode().rstrip("=")
        self.assertEqual(self.call("GET", f"{path}/commands?cursor={forged}", expect=200).body["items"], [])


class WithoutPostgres(CommandsApi):
    SETTINGS = {"DURAGATE_CFG_SERVER__WORKERS": "2", "DURAGATE_CFG_REGISTRY__QUERY_TIMEOUT": "500ms"}

    @contextlib.contextmanager
    def frozen(self):
        pids = postgres_pids(self.gateway)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def test_frozen(self):
        path, key = self.away()
        device = self.connected(path, key)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.post, path, None, "?wait=completed&timeout=2", 503)
            received = device.called()
            wait_until(lambda: self.state(f"{path}/commands/{received.id}") == "sent", 20)
            with self.frozen():
                device.acknowledged(received)
                self.assertEqual(device.reply(received), 0)  # it is in the stream
                answer = waiting.result(30)
                self.assertIn(received.id + " is queued", answer.detail)
                self.assertEqual(answer.headers["Location"], f"{path}/commands/{received.id}")
                for method, what, body in (("POST", path + "/commands", {"name": "x"}), ("GET", path + "/commands", None),
                                           ("GET", path + "/commands/" + received.id, None),
                                           ("DELETE", path + "/commands/" + received.id, None)):
                    answer = self.call(method, what, body, 503)
                    self.assertEqual(answer.headers["Retry-After"], "2")
        wait_until(lambda: self.call("GET", f"{path}/commands/{received.id}").body.get("state") == "completed", 30)

    def test_what_was_created_without_an_answer_is_delivered(self):
        path, key = self.away()
        device = self.connected(path, key)
        device.socket.settimeout(90)
        with self.frozen():
            self.post(path, None, "", 503)
        command = f"{path}/commands/{device.called().id}"  # PostgreSQL found it where it had left off
        wait_until(lambda: self.state(command) == "sent", 20)

    def test_what_may_have_been_created_is_told_by_its_key(self):
        """The answer of the statement that creates gets lost: the same key gives the command that is there."""
        path, _ = self.away()
        with self.gateway.locked("command"):
            answer = self.post(path, None, "", 503, Idempotency_Key="once")
            self.assertIn("may have been made all the same", answer.detail)
            self.assertNotIn("Location", answer.headers)
        wait_until(lambda: self.call("GET", path + "/commands").status == 200, 20)
        answer = self.post(path, Idempotency_Key="once")
        items = self.call("GET", path + "/commands", expect=200).body["items"]
        self.assertEqual([item["command_id"] for item in items], [answer.body["command_id"]])
        wait_until(lambda: self.events(answer.headers["Location"]) == ["queued"], 30)


class Documented(unittest.TestCase):
    """docs/commands.md, as it says; and what else the command line does."""

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway().up()
        cls.addClassCleanup(cls.gateway.close)
        with open(os.path.join(ROOT, "docs/commands.md"), encoding="utf-8") as file:
            cls.text = file.read()

    def shell(self, command, code=0):
        duragate = os.path.join(self.gateway.build, "duragate")
        command = command.replace("var/demo.env", os.path.join(self.gateway.var, "demo.env"))
        done = subprocess.run(["bash", "-c", f"duragate() {{ {duragate} \"$@\"; }}\n{command}"],
                              env={**os.environ, **self.gateway.env}, capture_output=True, text=True, timeout=100,
                              check=False)
        self.assertEqual(done.returncode, code, (command, done.stdout, done.stderr))
        return done.stdout if code == 0 else done.stdout + done.stderr

    @staticmethod
    def shape(text, ids=None):
        """Lines without times; ids: commands as they are counted here."""
        if ids is not None:
            text = re.sub(r"\bc\d+\b", lambda found: ids.setdefault(found[0], f"c{len(ids) + 1}"), text)
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text).splitlines()

    def test_examples(self):
        blocks = re.findall(r"```console\n(.*?)```", self.text, re.S)
        examples = [example.partition("\n") for block in blocks
                    for example in re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.M)[1:]]
        self.assertEqual(len(examples), 4)
        ids = {}
        self.assertEqual(self.shape(self.shell(examples[0][0]), ids), self.shape(examples[0][2]))
        with subprocess.Popen([os.path.join(self.gateway.build, "duragate"), "device", "simulate", "--env",
                               os.path.join(self.gateway.var, "demo.env")], stdout=subprocess.PIPE) as device:
            try:
                wait_until(lambda: "completed" in self.shell(
                    "duragate command list sensor1 --env var/demo.env"), 20)
                for command, _, output in examples[1:3]:
                    self.assertEqual(self.shape(self.shell(command), ids), self.shape(output))
                self.assertEqual(self.shape(self.shell(examples[3][0]), ids)[:4], self.shape(examples[3][2]))
            finally:
                device.terminate()
                device.stdout.read()

    def test_command_line(self):
        self.gateway.device("d1")
        send = "duragate command send d1 turn --env var/demo.env "
        for arguments, text in (("--data off", "text stands in double quotes"), ("--timeout 5", "--wait says for what"),
                                ("--ttl 1500ms", "whole seconds"), ("--ttl x", "takes a duration"),
                                ("--property x", "takes NAME=VALUE"), ("--wait sent --timeout 301", "from 1 to 300"),
                                ("--idempotency-key $'a\\r\\nb'", "printable")):
            self.assertIn(text, self.shell(send + arguments, 64))
        self.assertIn("must be one of: queued", self.shell(send + "--wait done", 1))
        made = json.loads(self.shell(send + "--data '[1]' --no-reply --ttl 10m --property a=b=c --property e= "
                                            "--idempotency-key k --json"))
        self.assertEqual((made["payload"], made["wants_reply"], made["properties"], made["idempotency_key"]),
                         ([1], False, {"a": "b=c", "e": ""}, "k"))
        id = made["command_id"]
        self.assertIn(f"it is queued; it goes on: `duragate command show d1 {id}`",
                      self.shell(send + "--data '[1]' --no-reply --property a=b=c --property e= --idempotency-key k "
                                        "--wait sent --timeout 1", 1))
        self.assertIn("queued", self.shell(f"duragate command show d1 {id} --env var/demo.env"))
        self.assertIn(id, self.shell("duragate command list d1 --state queued --env var/demo.env"))
        self.shell(f"duragate command cancel d1 {id} --env var/demo.env")
        self.assertIn("its state is cancelled", self.shell(f"duragate command cancel d1 {id} --env var/demo.env", 1))
        self.assertEqual(json.loads(self.shell("duragate command list d1 --state queued --json --env var/demo.env")), [])
        self.assertIn("cancelled", self.shell(send + "--data '[1]' --no-reply --property a=b=c --property e= "
                                              "--idempotency-key k --wait completed", 1))
        watched = self.shell("duragate command watch d1 --from beginning --count 2 --env var/demo.env")
        self.assertEqual(re.findall(r"duragate\.command\.(\w+)\.v1", watched), ["queued", "cancelled"])


if __name__ == "__main__":
    unittest.main()
