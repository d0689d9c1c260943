"""Device twins: desired state reaches the device, reported state the stream and PostgreSQL, in that order."""

import json
import unittest

from called_device import CalledDevice, subscribe
from harness import Gateway, wait_until
from raw_mqtt import PUBACK, PUBCOMP, PUBREC, SUBACK, publish, pubrel, unsubscribe

DESIRED, REPORTED = "$dg/state/desired", "$dg/state/reported"
HOUR = 3600


class Device(CalledDevice):
    """A raw connection that may listen to its desired state."""

    def __init__(self, gateway, name, key, version=5, listens=True, to=DESIRED, **more):
        super().__init__(gateway, name, version, None, key=key, **more)
        if listens:
            self.listen(to)

    def listen(self, to=DESIRED, qos=1):
        first, body = self.send(subscribe(qos, self.version, to=to)).read()
        assert first >> 4 == SUBACK and body[-1] == qos, (first, body)

    def desired(self, topic=DESIRED):
        """The next message: (version, state)."""
        received = self.called()
        assert received.topic == topic, received.topic
        self.acknowledged(received)
        message = json.loads(received.payload)
        assert set(message) == {"version", "state"}, message
        return message["version"], message["state"]

    def report(self, patch, qos=1, packet_id=5, topic=REPORTED):
        """(reason code, reason string) of the acknowledgement."""
        payload = patch if isinstance(patch, bytes) else json.dumps(patch).encode()
        self.send(publish(topic, payload, qos, packet_id, self.version))
        if qos == 0:
            return 0, ""
        first, body = self.read()
        assert first >> 4 == (PUBACK if qos == 1 else PUBREC), (first, body)
        reason = body[2] if len(body) > 2 else 0
        if qos == 2 and reason < 0x80:
            self.send(pubrel(packet_id))
            assert self.read()[0] >> 4 == PUBCOMP
        text = body[7:].decode() if len(body) > 4 and body[4] == 0x1F else ""
        return reason, text


class TwinTest(unittest.TestCase):
    SETTINGS = {"DURAGATE_CFG_SERVER__WORKERS": "2"}

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings=cls.SETTINGS).up()
        cls.addClassCleanup(cls.gateway.close)
        cls.keys = {}

    def device(self, name, **more):
        if name not in self.keys:
            self.keys[name] = self.gateway.device(name)
        device = Device(self.gateway, name, self.keys[name], **more)
        self.addCleanup(device.socket.close)
        return device

    def path(self, name, more="/twin"):
        return f"/v1/tenants/{self.gateway.TENANT}/devices/{name}{more}"

    def twin(self, name):
        status, body, headers = self.gateway.api("GET", self.path(name))
        self.assertEqual(status, 200, body)
        self.assertEqual(headers["ETag"], f'"{body["version"]}"')
        return body

    def patch(self, name, body, expect=200, headers=None, key=None):
        status, answer, _ = self.gateway.api("PATCH", self.path(name), body, headers, key)
        self.assertEqual(status, expect, answer)
        return answer

    def events(self, name, kind):
        """The payloads of a device's events of one type, in order."""
        topic = f"{self.gateway.TENANT}.commands"
        found = []
        for line in self.gateway.consume(topic=topic, format="%k|%h|%s\\n").splitlines():
            key, headers, value = line.split("|", 2)
            if key == name and f"ce_type=duragate.state.{kind}.v1" in headers:
                self.assertIn(f"ce_subject={kind}", headers)
                found.append(json.loads(value))
        return found

    def wait_for_events(self, name, kind, expected):
        wait_until(lambda: self.events(name, kind) == expected, 20)

    def wait_for_reported(self, name, version, document):
        wait_until(lambda: self.twin(name)["reported_version"] == version, 20)
        self.assertEqual(self.twin(name)["reported"], document)


class Desired(TwinTest):
    def test_whole_document_after_each_change(self):
        for version in (4, 5):
            name = f"desired{version}"
            device = self.device(name, version=version)
            self.assertEqual(device.desired(), (1, {}))
            first = self.patch(name, {"desired": {"led": {"on": True, "color": "red"}, "rate": 1.5, "gone": None}})
            self.assertEqual(device.desired(), (2, {"led": {"on": True, "color": "red"}, "rate": 1.5}))
            self.assertEqual((first["desired_version"], first["reported_version"]), (2, 1))
            self.patch(name, {"desired": {"led": {"color": None}, "list": [1, None]}, "tags": {"site": {"row": 7}}})
            self.assertEqual(device.desired(), (3, {"led": {"on": True}, "rate": 1.5, "list": [1, None]}))
            status, answer, _ = self.gateway.api("PUT", self.path(name, "/twin/desired"), {"only": "this", "no": None})
            self.assertEqual((status, answer["desired"]), (200, {"only": "this"}), answer)
            self.assertEqual(device.desired(), (4, {"only": "this"}))
            self.assertEqual(self.twin(name)["tags"], {"site": {"row": 7}})
            self.wait_for_events(name, "desired", [
                {"version": 2, "patch": {"led": {"on": True, "color": "red"}, "rate": 1.5, "gone": None}},
                {"version": 3, "patch": {"led": {"color": None}, "list": [1, None]}},
                {"version": 4, "state": {"only": "this", "no": None}}])

    def test_same_value_is_another_version(self):
        device = self.device("same")
        self.assertEqual(device.desired(), (1, {}))
        for version in (2, 3):
            self.patch("same", {"desired": {"a": 1}})
            self.assertEqual(device.desired(), (version, {"a": 1}))

    def test_only_the_latest_counts(self):
        """While the device has not acknowledged one, others wait; of them it gets the last."""
        device = self.device("slow")
        first = device.called()
        for number in range(5):
            self.patch("slow", {"desired": {"number": number}})
        device.acknowledged(first)
        self.assertEqual(device.desired(), (6, {"number": 4}))
        self.patch("slow", {"desired": {"number": 5}})
        self.assertEqual(device.desired(), (7, {"number": 5}))

    def test_device_that_was_away(self):
        for version in (4, 5):
            name = f"away{version}"
            clean = {"clean": False, "version": version} | ({"expiry": HOUR} if version == 5 else {})
            device = self.device(name, **clean)
            self.assertEqual(device.desired(), (1, {}))
            device.socket.close()
            for number in (1, 2):
                self.patch(name, {"desired": {"number": number}})
            device = self.device(name, listens=False, **clean)
            self.assertTrue(device.present)
            self.assertEqual(device.desired(), (3, {"number": 2}))
            self.patch(name, {"desired": {"number": 3}})
            self.assertEqual(device.desired(), (4, {"number": 3}))

    def test_subscribed_again_and_no_more(self):
        device = self.device("again")
        self.assertEqual(device.desired(), (1, {}))
        device.listen()
        self.assertEqual(device.desired(), (1, {}))
        device.send(unsubscribe(DESIRED)).read()
        self.patch("again", {"desired": {"a": 1}})
        self.assertEqual(device.report({}), (0, ""))  # nothing came before it
        device.listen()
        self.assertEqual(device.desired(), (2, {"a": 1}))

    def test_after_a_restart(self):
        gateway = self.gateway
        device = self.device("restart", clean=False, expiry=HOUR)
        self.assertEqual(device.desired(), (1, {}))
        gateway.kill()
        gateway.up()
        self.patch("restart", {"desired": {"a": 1}})
        device = self.device("restart", listens=False, clean=False, expiry=HOUR)
        self.assertEqual(device.desired(), (2, {"a": 1}))

    def test_written_by_another_gateway(self):
        device = self.device("elsewhere")
        self.assertEqual(device.desired(), (1, {}))
        for version in (2, 3):
            self.gateway.sql(f"select w.* from device, twin_write(array[device_key], '{{\"a\": {version}}}', null,"
                             " false, null, 'another') w where device_id = 'elsewhere'")
            self.assertEqual(device.desired(), (version, {"a": version}))

    def test_notifications_that_were_missed(self):
        """Written without a word: seen when the gateway's connections to PostgreSQL are back."""
        device = self.device("missed")
        self.assertEqual(device.desired(), (1, {}))
        self.gateway.sql("insert into desired_state (device_key, version, document, metadata, recent)"
                         " select device_key, 2, '{\"a\": 1}', '{}', '[]' from device where device_id = 'missed'")
        self.gateway.sql("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
                         " and usename = 'duragate'")
        self.assertEqual(device.desired(), (2, {"a": 1}))
        wait_until(lambda: self.gateway.api("GET", "/readyz")[0] == 200, 20)


class Conditions(TwinTest):
    def test_etag(self):
        self.device("etag", listens=False)
        twin = self.twin("etag")
        etag = f'"{twin["version"]}"'
        changed = self.patch("etag", {"desired": {"a": 1}}, headers={"If-Match": etag})
        self.assertEqual(self.twin("etag")["version"], changed["version"])
        self.patch("etag", {"desired": {"a": 2}}, 412, {"If-Match": etag})
        self.patch("etag", {"tags": {"a": 2}}, 412, {"If-Match": etag})
        etag = f'"{changed["version"]}"'
        changed = self.patch("etag", {"tags": {"a": "2"}}, headers={"If-Match": etag})
        self.patch("etag", {"desired": {"a": 2}}, 412, {"If-Match": etag})
        status, *_ = self.gateway.api("PUT", self.path("etag", "/twin/desired"), {}, {"If-Match": etag})
        self.assertEqual(status, 412)
        # Tags are those of the device: what changes them there counts.
        status, *_ = self.gateway.api("PATCH", self.path("etag", ""), {"tags": {"a": "3"}})
        self.assertEqual(status, 200)
        self.patch("etag", {"desired": {"a": 2}}, 412, {"If-Match": f'"{changed["version"]}"'})
        self.patch("etag", {"desired": {"a": 2}}, headers={"If-Match": "*"})
        twin = self.twin("etag")
        self.assertEqual((twin["desired"], twin["desired_version"], twin["tags"]), ({"a": 2}, 3, {"a": "3"}))

    def test_reports_do_not_change_it(self):
        device = self.device("chatty", listens=False)
        before = self.twin("chatty")["version"]
        self.assertEqual(device.report({"a": 1}), (0, ""))
        self.wait_for_reported("chatty", 2, {"a": 1})
        self.patch("chatty", {"desired": {"a": 1}}, headers={"If-Match": f'"{before}"'})

    def test_refused(self):
        self.device("refused", listens=False)
        for body, status, word in (
                ({"desired": {"a.b": 1}}, 422, "/desired: a name has no"),
                ({"desired": {"a": {"b": 2 ** 53}}}, 422, "/desired/a/b: a number"),
                ({"tags": {"a": "x" * 5000}}, 422, "/tags/a: a string"),
                ({"desired": None}, 422, "/desired: must be a JSON object"),
                ({"desired": [1]}, 422, "/desired: must be a JSON object"),
                ({"reported": {}}, 422, "/reported: no such member"),
                (b'{"desired":{"a":1,"a":2}}', 400, "duplicate"),
                ({"desired": {str(n): "x" * 4000 for n in range(9)}}, 413, "/desired: would have more than 32 KiB"),
                ({"tags": {str(n): "x" * 2000 for n in range(5)}}, 413, "/tags: would have more than 8 KiB")):
            answer = self.patch("refused", body, status)
            self.assertIn(word, answer["detail"])
        self.assertEqual(self.gateway.api("GET", self.path("nobody"))[0], 404)
        self.patch("nobody", {"desired": {}}, 404)
        self.assertEqual(self.twin("refused")["desired_version"], 1)
        self.assertEqual(self.events("refused", "desired"), [])

    def test_sizes_are_those_of_the_whole(self):
        """32 KiB exactly, however it came to be."""
        self.device("sizes", listens=False)
        frame = len('{"0":"","1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":""}')
        sizes = [4000] * 8 + [32 * 1024 - frame - 8 * 4000]
        for number, size in enumerate(sizes):
            self.patch("sizes", {"desired": {str(number): "x" * size}})
        self.patch("sizes", {"desired": {"a": 1}}, 413)
        self.patch("sizes", {"desired": {"8": None, "a": 1}})

    def test_roles(self):
        self.device("roles", listens=False)
        keys = {}
        for role in ("commander", "operator", "reader"):
            status, body, _ = self.gateway.api("POST", f"/v1/tenants/{self.gateway.TENANT}/api-keys", {"roles": [role]})
            self.assertEqual(status, 201, body)
            keys[role] = body["bearer"]
        self.patch("roles", {"desired": {"a": 1}}, key=keys["commander"])
        self.patch("roles", {"tags": {"a": 1}}, 403, key=keys["commander"])
        self.patch("roles", {"tags": {"a": 1}}, key=keys["operator"])
        self.patch("roles", {"desired": {"a": 1}}, 403, key=keys["operator"])
        self.patch("roles", {"desired": {"a": 1}}, 403, key=keys["reader"])
        self.assertEqual(self.gateway.api("GET", self.path("roles"), key=keys["reader"])[0], 200)


class Reported(TwinTest):
    def test_every_qos_and_version(self):
        for version in (4, 5):
            for qos in (0, 1, 2):
                with self.subTest(version=version, qos=qos):
                    name = f"reported{version}{qos}"
                    device = self.device(name, version=version, listens=False)
                    patches = [{"a": {"b": 1, "c": 2}, "n": None}, {"a": {"b": None, "d": [1]}, "e": 0.1}, {"e": 0.1}]
                    for packet_id, patch in enumerate(patches, 1):
                        self.assertEqual(device.report(patch, qos, packet_id), (0, ""))
                    self.wait_for_reported(name, 4, {"a": {"c": 2, "d": [1]}, "e": 0.1})
                    self.assertEqual(self.events(name, "reported"),
                                     [{"version": number, "patch": patch} for number, patch in enumerate(patches, 2)])

    def test_many_at_a_time(self):
        """In order, each a version, whatever waits for what."""
        device = self.device("many", listens=False)
        for number in range(50):
            device.send(publish(REPORTED, json.dumps({"number": number, f"k{number % 7}": number}), 1, number + 1))
            device.send(publish("telemetry", b"x", 1, number + 101))
        acknowledged = [device.read() for _ in range(100)]
        self.assertEqual([body[1] for _, body in acknowledged],
                         [packet_id for number in range(50) for packet_id in (number + 1, number + 101)])
        self.wait_for_reported("many", 51, {"number": 49, **{f"k{n % 7}": n for n in range(50)}})
        self.assertEqual([event["version"] for event in self.events("many", "reported")], list(range(2, 52)))

    def test_refused(self):
        device = self.device("wrong", listens=False)
        for payload, reason, text in (
                (b"", 0x99, "the document: must be a JSON object"),
                (b"nonsense", 0x99, "not JSON: line 1, column 8"),
                ([1], 0x99, "the document: must be a JSON object"),
                ({"a": {"b c": 1}}, 0x99, "/a: a name has no control characters, '.', '$' or space"),
                ({"$version": 1}, 0x99, "the document: a name has no control characters"),
                ({"a": [2 ** 53]}, 0x99, "/a/0: a number is from -2^52 to 2^52"),
                ({"a": "x" * 5000}, 0x99, "/a: a string has at most 4096 bytes"),
                ({"a": ["x" * 4000] * 9}, 0x97, "a patch has at most 32768 bytes")):
            for qos in (1, 2):
                self.assertEqual(device.report(payload, qos)[0], reason)
                self.assertIn(text, device.report(payload, qos)[1])
        for key in "abcdefgh":
            self.assertEqual(device.report({key: "x" * 4000}), (0, ""))
        reason, text = device.report({"i": "x" * 4000})
        self.assertEqual(reason, 0x97)
        self.assertIn("the document would have 36064 bytes as compact JSON; at most 32768 are allowed", text)
        self.assertEqual(device.report({"a": None, "i": "x" * 4000}), (0, ""))
        self.assertEqual(len(self.events("wrong", "reported")), 9)

    def test_refused_without_a_word_for_it(self):
        """QoS 0 and 3.1.1: put aside, acknowledged."""
        for version, qos in ((4, 0), (4, 1), (4, 2), (5, 0)):
            name = f"aside{version}{qos}"
            device = self.device(name, version=version, listens=False)
            self.assertEqual(device.report({"a b": name}, qos), (0, ""))
            self.assertEqual(device.report({"good": True}, qos, 6), (0, ""))
            self.wait_for_reported(name, 2, {"good": True})

            def put_aside(name=name):
                lines = self.gateway.consume(topic=f"{self.gateway.TENANT}.quarantine", format="%k|%h|%s\\n")
                return any(line.startswith(name + "|") and "rule=state" in line for line in lines.splitlines())

            wait_until(put_aside, 20)

    def test_digits_beyond_those_of_a_number(self):
        """Neither PostgreSQL nor the limit of a document hears of digits that make no difference."""
        device = self.device("digits", listens=False)
        for name in ("a", "b"):
            self.assertEqual(device.report(b'{"%s":0.%s}' % (name.encode(), b"1" * 20000)), (0, ""))
        number = 0.1111111111111111
        self.wait_for_reported("digits", 3, {"a": number, "b": number})
        self.assertLess(int(self.gateway.sql("select octet_length(reported::text) from twin where device_id = 'digits'")), 100)
        self.wait_for_events("digits", "reported", [{"version": 2, "patch": {"a": number}}, {"version": 3, "patch": {"b": number}}])

    def test_desired_and_reported_are_apart(self):
        device = self.device("apart")
        self.assertEqual(device.desired(), (1, {}))
        self.assertEqual(device.report({"a": 1}), (0, ""))
        self.patch("apart", {"desired": {"b": 1}})
        self.assertEqual(device.desired(), (2, {"b": 1}))
        self.wait_for_reported("apart", 2, {"a": 1})
        twin = self.twin("apart")
        self.assertEqual((twin["desired"], twin["desired_version"]), ({"b": 1}, 2))


class Behind(TwinTest):
    def child(self, name, *via):
        status, body, _ = self.gateway.api("PUT", self.path(name, ""), {"via": list(via)})
        self.assertIn(status, (200, 201), body)

    def test_children_of_a_gateway(self):
        self.child("c1", "gw")
        self.child("c2", "gw")
        gateway = self.device("gw", listens=False, clean=False, expiry=HOUR)
        for name in ("c1", "c2"):
            topic = f"$dg/via/{name}/state/desired"
            gateway.listen(topic)
            self.assertEqual(gateway.desired(topic), (1, {}))
            self.assertEqual(gateway.report({"me": name}, topic=f"$dg/via/{name}/{REPORTED}"), (0, ""))
            self.wait_for_reported(name, 2, {"me": name})
            self.patch(name, {"desired": {"for": name}})
            self.assertEqual(gateway.desired(topic), (2, {"for": name}))
        self.assertEqual(self.events("c1", "reported"), [{"version": 2, "patch": {"me": "c1"}}])
        self.assertEqual(self.events("gw", "reported"), [])
        gateway.socket.close()
        self.patch("c2", {"desired": {"for": "nobody"}})
        gateway = self.device("gw", listens=False, clean=False, expiry=HOUR)
        self.assertTrue(gateway.present)
        told = sorted((received.topic, json.loads(received.payload)["version"])
                      for received in [gateway.called(), gateway.called()])
        self.assertEqual(told, [("$dg/via/c1/state/desired", 2), ("$dg/via/c2/state/desired", 3)])

    def test_child_that_has_moved(self):
        """A gateway that may not speak for a device any more is not told of it."""
        self.child("m1", "old", "new")
        topic = "$dg/via/m1/state/desired"
        old = self.device("old", to=topic)
        new = self.device("new", to=topic)
        for gateway in (old, new):
            self.assertEqual(gateway.desired(topic), (1, {}))
        self.patch("m1", {"desired": {"a": 1}})
        for gateway in (old, new):
            self.assertEqual(gateway.desired(topic), (2, {"a": 1}))
        self.child("m1", "new")
        wait_until(lambda: old.report({}, topic=f"$dg/via/m1/{REPORTED}")[0] == 0x87, 10)
        self.patch("m1", {"desired": {"a": 2}})
        self.assertEqual(new.desired(topic), (3, {"a": 2}))
        self.assertEqual(old.report({}), (0, ""))  # nothing came before it

    def test_topic_map(self):
        path = f"/v1/tenants/{self.gateway.TENANT}/policy"
        rules = {"topic_map": {"in": [{"pattern": "me/state", "kind": "state_reported"},
                                      {"pattern": "nodes/{device}/state", "kind": "state_reported"}],
                               "out": {"state_desired": "me/config", "via_state_desired": "nodes/{device}/config"}}}
        self.assertEqual(self.gateway.api("PATCH", path, rules)[0], 200)
        self.addCleanup(self.gateway.api, "PATCH", path, {"topic_map": None})
        self.child("n1", "mapped")
        device = self.device("mapped", listens=False)
        wait_until(lambda: device.send(subscribe(1, 5, to="me/config")).read()[1][-1] == 1, 10)
        self.assertEqual(device.desired("me/config"), (1, {}))
        self.patch("mapped", {"desired": {"a": 1}})
        self.assertEqual(device.desired("me/config"), (2, {"a": 1}))
        self.assertEqual(device.report({"a": 1}, topic="me/state"), (0, ""))
        self.wait_for_reported("mapped", 2, {"a": 1})
        device.listen("nodes/n1/config")
        self.assertEqual(device.desired("nodes/n1/config"), (1, {}))
        self.patch("n1", {"desired": {"a": 1}})
        self.assertEqual(device.desired("nodes/n1/config"), (2, {"a": 1}))
        self.assertEqual(device.report({"n": 1}, topic="nodes/n1/state"), (0, ""))
        self.wait_for_reported("n1", 2, {"n": 1})


class Apart(TwinTest):
    """PostgreSQL that does not answer, and a gateway that ends at the wrong moment."""

    SETTINGS = TwinTest.SETTINGS | {"DURAGATE_CFG_REGISTRY__QUERY_TIMEOUT": "1s"}

    def test_killed_before_the_projection(self):
        gateway = self.gateway
        device = self.device("killed", listens=False)
        self.assertEqual(device.report({"number": 0}), (0, ""))
        self.wait_for_reported("killed", 2, {"number": 0})
        with gateway.locked("reported_state"):
            for number in (1, 2, 3):  # the document is known: PostgreSQL is not needed
                self.assertEqual(device.report({"number": number, f"k{number}": True}), (0, ""))
            self.assertEqual(len(self.events("killed", "reported")), 4)
            gateway.kill()
        gateway.up()
        expected = {"number": 3, "k1": True, "k2": True, "k3": True}
        self.wait_for_reported("killed", 5, expected)
        device = self.device("killed", listens=False)
        self.assertEqual(device.report({"number": 4}), (0, ""))
        self.wait_for_reported("killed", 6, expected | {"number": 4})
        self.assertEqual([event["version"] for event in self.events("killed", "reported")], [2, 3, 4, 5, 6])

    def test_killed_after_the_projection(self):
        """PostgreSQL has it, the gateway does not know: said again it changes nothing."""
        gateway = self.gateway
        device = self.device("twice", listens=False)
        for number in range(20):
            self.assertEqual(device.report({"number": number}), (0, ""))
        gateway.kill()
        gateway.up()
        self.wait_for_reported("twice", 21, {"number": 19})
        self.assertEqual([event["version"] for event in self.events("twice", "reported")], list(range(2, 22)))

    def test_more_than_a_statement_has_time_for(self):
        """A large document and many small changes of it: said in smaller parts, and nobody else waits for good."""
        gateway = self.gateway
        device = self.device("large", listens=False)
        large = {f"k{number:04}": 0 for number in range(2900)}
        self.assertEqual(device.report(json.dumps(large, separators=(",", ":")).encode()), (0, ""))
        for number in range(200):
            self.assertEqual(device.report({"k0000": number}), (0, ""))
        gateway.kill()
        gateway.up()  # no command is delivered before all of that is said
        other = self.device("beside", listens=False, keep_alive=300)
        self.assertEqual(other.send(subscribe(1, 5)).read()[0] >> 4, SUBACK)
        status, body, _ = gateway.api("POST", self.path("beside", "/commands"), {"name": "x"})
        self.assertEqual(status, 202, body)
        other.socket.settimeout(120)
        self.assertEqual(other.called().id, body["command_id"])
        self.wait_for_reported("large", 202, large | {"k0000": 199})

    def test_unknown_twin(self):
        """What is needed and cannot be read is refused; telemetry goes on."""
        device = self.device("unknown", listens=False)
        with self.gateway.locked("reported_state"):
            reason, text = device.report({"a": 1})
            self.assertEqual(reason, 0x80, text)
            self.assertEqual(device.published("t", packet_id=9), 0)
        wait_until(lambda: device.report({"a": 1}) == (0, ""), 10)
        self.assertEqual(self.twin("unknown")["desired_version"], 1)

    def test_more_than_a_statement_can_take(self):
        """What gathered while PostgreSQL did not answer, and is too much for one deadline, comes bit by bit."""
        device = self.device("slow", listens=False)
        self.assertEqual(device.report({"n": 0}), (0, ""))
        self.wait_for_reported("slow", 2, {"n": 0})
        self.gateway.sql("create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.05);"
                         " return new; end $$; create trigger slow before update on reported_state for each row"
                         " execute function slow()")
        self.addCleanup(self.gateway.sql, "drop function slow cascade")
        with self.gateway.locked("reported_state"):
            for n in range(1, 61):
                self.assertEqual(device.report({"n": n}), (0, ""))
        wait_until(lambda: self.twin("slow")["reported_version"] == 62, 60)
        self.assertEqual(self.twin("slow")["reported"], {"n": 60})

    def test_desired_that_cannot_be_read(self):
        device = self.device("waits", listens=False)
        with self.gateway.locked("desired_state"):
            device.listen()
            self.assertEqual(device.published("t", packet_id=9), 0)
        self.assertEqual(device.desired(), (1, {}))

    def test_two_gateways_have_reported(self):
        """Another one, with the same PostgreSQL, wrote meanwhile: nothing is lost, the versions go on."""
        device = self.device("shared", listens=False)
        self.assertEqual(device.report({"a": 1}), (0, ""))
        self.wait_for_reported("shared", 2, {"a": 1})
        for _ in range(2):  # said twice, it counts once
            self.gateway.sql("select twin_project(jsonb_build_array(jsonb_build_object('k', device_key, 'v', 3,"
                             " 'at', 0, 'p', '{\"b\": 1}'::jsonb)), 'other') from device where device_id = 'shared'")
            self.assertEqual(self.twin("shared")["reported_version"], 3)
        self.assertEqual(device.report({"c": 1}), (0, ""))
        self.wait_for_reported("shared", 4, {"a": 1, "b": 1, "c": 1})
        wait_until(lambda: device.report({"c": 2}) == (0, ""), 10)
        self.wait_for_reported("shared", 5, {"a": 1, "b": 1, "c": 2})


if __name__ == "__main__":
    unittest.main()
