"""Devices written for Azure IoT Hub, over MQTT: who gets in, what becomes of what they send, what reaches them."""

import json
import os
import signal
import ssl
import struct
import threading
import unittest

import paho.mqtt.client as paho

from called_device import Call, Received, acknowledge
from certificates import Certificates
from harness import Gateway, wait_until
from iothub_device import HubDevice, token
from raw_mqtt import PINGRESP, PUBACK, SUBACK, Raw, packet, publish, text

METHODS = "$iothub/methods/POST/#"


def subscribe(*filters, qos=1):
    return packet(0x82, struct.pack(">H", 1) + b"".join(text(f) + bytes([qos]) for f in filters))


class IotHub(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(settings={"DURAGATE_CFG_SERVER__WORKERS": "2"}).up()
        cls.addClassCleanup(cls.gateway.close)
        cls.certificates = Certificates(cls.gateway.directory)

    def connection(self):
        raw = Raw(self.gateway.MQTT_PORT, timeout=30)
        self.addCleanup(raw.socket.close)
        return raw

    def code(self, user, password, client_id, **more):
        """Of the CONNACK that a CONNECT gets; the connection."""
        raw = self.connection()
        return raw.log_in(user, password, client_id=client_id, version=more.pop("version", 4), **more), raw

    def connected(self, device, **more):
        code, raw = self.code(device.user, device.token(), device.name, **more)
        self.assertEqual(code, 0)
        return raw

    def subscribed(self, raw, *filters, qos=1):
        """The codes of the SUBACK."""
        first, body = raw.send(subscribe(*filters, qos=qos)).read()
        self.assertEqual(first >> 4, SUBACK)
        return list(body[2:])

    def published(self, raw, topic, payload=b"x", qos=1):
        first, _ = raw.send(publish(topic, payload, qos, 7, 4)).read()
        self.assertEqual(first >> 4, PUBACK)

    def events(self, device):
        """Headers and payload of what is stored of a device's telemetry."""
        lines = self.gateway.consume(format="%k\t%h\t%s\n").splitlines()
        found = []
        for line in lines:
            key, headers, payload = line.split("\t", 2)
            headers = dict(header.split("=", 1) for header in headers.split(","))
            if key == device and headers["ce_type"] == "duragate.telemetry.v1":
                found.append((headers, payload))
        return found

    # ---- logging in ----

    def test_tokens(self):
        device = HubDevice.make(self.gateway, "tokens")
        others = HubDevice.make(self.gateway, "others")
        host, name = device.host, device.name
        for user in (device.user, f"{host}/{name}/api-version=2016-11-14", f"{host}/{name}",
                     f"{host.upper()}:8883/{name}/?api-version=2021-04-12", f"localhost/{name}/?api-version=x"):
            with self.subTest(user=user):
                its_host = user.split("/")[0].split(":")[0]
                password = token(f"{its_host}/devices/{name}", device.key)
                self.assertEqual(self.code(user, password, name)[0], 0)
        for what, resource in (("hub", host), ("its devices", f"{host}/devices"),
                               ("another case", f"{host.upper()}/devices/{name}")):
            with self.subTest(resource=what):
                self.assertEqual(self.code(device.user, token(resource, device.key), name)[0], 0)
        refused = {
            "another device's key": (device.user, token(device.resource, others.key), name, 4),
            "another device's token": (device.user, others.token(), name, 4),
            "another host's token": (device.user, token(f"localhost/devices/{name}", device.key), name, 4),
            "expired": (device.user, device.token(-600), name, 4),
            "no token": (device.user, device.key, name, 4),
            "unknown device": (device.user.replace(name, "nobody"), token(f"{host}/devices/nobody", device.key),
                               "nobody", 4),
            "another client id": (device.user, device.token(), "others", 2),
            "a module": (f"{host}/{name}/m/?x", token(f"{device.resource}/modules/m", device.key), f"{name}/m", 2),
            "unknown host": (f"nohub.example.com/{name}/?x", token(f"nohub.example.com/devices/{name}", device.key),
                             name, 5),
        }
        for what, (user, password, client_id, expected) in refused.items():
            with self.subTest(what):
                code, raw = self.code(user, password, client_id)
                self.assertEqual(code, expected)
                self.assertEqual(raw.until_closed(), [])
        self.assertEqual(self.code(device.user, device.token(), name, version=5)[0], 0x84)

    def test_another_host_name(self):
        """A name that the configuration gets while the gateway runs, and loses again."""
        device = HubDevice.make(self.gateway, "renamed")
        file = f"{self.gateway.var}/duragate.yaml"
        with open(file, encoding="utf-8") as text:
            before = text.read()

        def code():
            return self.code(f"new.example.com/{device.name}/?x", token(f"new.example.com/devices/{device.name}",
                                                                        device.key), device.name)[0]

        self.assertEqual(code(), 5)
        for hosts, expected in (("new.example.com=demo,iothub.localhost", 0), ("iothub.localhost", 5)):
            with open(file, "w", encoding="utf-8") as text:
                text.write(before.replace('hosts: "iothub.localhost', f'hosts: "{hosts}'))
            os.kill(self.gateway.pid(), signal.SIGHUP)
            wait_until(lambda: code() == expected, 20)

    def test_token_expires(self):
        device = HubDevice.make(self.gateway, "expires")
        code, raw = self.code(device.user, device.token(2), device.name)
        self.assertEqual(code, 0)
        self.assertEqual(raw.until_closed(), [])

    def test_device_is_disabled(self):
        device = HubDevice.make(self.gateway, "disabled")
        raw = self.connected(device)
        path = f"/v1/tenants/{self.gateway.TENANT}/devices/{device.name}"
        self.assertEqual(self.gateway.api("PATCH", path, {"enabled": False})[0], 200)
        self.assertEqual(raw.until_closed(), [])
        self.assertEqual(self.code(device.user, device.token(), device.name)[0], 5)

    def test_certificates(self):
        path = f"/v1/tenants/{self.gateway.TENANT}"
        for name, digest in (("thumb1", "sha1"), ("thumb256", "sha256")):
            self.certificates.self_signed(name)
            self.gateway.api("PUT", f"{path}/devices/{name}", {})
            status, _, _ = self.gateway.api("POST", f"{path}/devices/{name}/credentials",
                                            {"kind": "x509", "thumbprint": self.certificates.fingerprint(name, digest)})
            self.assertEqual(status, 201)
        self.certificates.authority("hubca")
        self.assertIn(self.gateway.api("PUT", f"{path}/certificate-authorities/hubca",
                                       {"certificate": self.certificates.pem("hubca")})[0], (200, 201))
        self.gateway.api("PUT", f"{path}/devices/leaf", {})
        self.certificates.signed("leaf", self.certificates.path("hubca"), "leaf")
        for name in ("thumb1", "thumb256", "leaf"):
            for claimed, expected in ((name, 0), ("tokens", None)):
                with self.subTest(name, claimed=claimed):
                    self.assertEqual(self.certificate_code(name, claimed) == 0, expected == 0)

    def certificate_code(self, certificate, device):
        context = ssl.create_default_context(cafile=self.gateway.CA_FILE)
        context.load_cert_chain(self.certificates.path(certificate + ".pem"),
                                self.certificates.path(certificate + ".key"))
        raw = Raw(self.gateway.MQTTS_PORT, timeout=30)
        raw.socket = context.wrap_socket(raw.socket, server_hostname=self.gateway.IOTHUB_HOST)
        self.addCleanup(raw.socket.close)
        return raw.log_in(f"{self.gateway.IOTHUB_HOST}/{device}/?api-version=2021-04-12", None, client_id=device,
                          version=4)

    def test_take_over(self):
        device = HubDevice.make(self.gateway, "twice")
        first = self.connected(device)
        second = self.connected(device)
        self.assertEqual(first.until_closed(), [])
        self.published(second, device.events)

    def test_take_over_from_a_native_connection(self):
        """What that had not acknowledged comes under the names of the dialect, or not at all."""
        device = HubDevice.make(self.gateway, "bilingual")
        key = self.gateway.device(device.name)
        native = self.connection()
        native.resumed(f"{device.name}@{self.gateway.TENANT}", key, client_id=device.name, version=4, clean=False)
        for filter in ("$dg/commands/#", "$dg/state/desired"):  # one after the other, so they come again in this order
            if filter == "$dg/commands/#":
                self.post(device, wants_reply=False, payload=1)
            native.send(subscribe(filter))
            self.assertEqual({native.read()[0] >> 4 for _ in range(2)}, {3, SUBACK})
        raw = self.connected(device, clean=False).send(packet(0xC0, b""))
        received = []
        while not received or received[-1][0] >> 4 != PINGRESP:
            received.append(raw.read())
        self.assertEqual([Received(*sent, 4).payload for sent in received[:-1]], [b"1"])

    def test_wider_alphabet(self):
        """Made by who may make it (here: behind the gateway's back), it is reached by the dialect only."""
        path = f"/v1/tenants/{self.gateway.TENANT}/devices/"
        status, body, _ = self.gateway.api("PUT", path + "a%40b%28c%29", {})
        self.assertEqual(status, 422, body)
        self.gateway.sql("insert into device (tenant_key, device_id, partition) select tenant_key, 'a@b(c)', 3"
                         f" from tenant where name = '{self.gateway.TENANT}'")
        self.assertEqual(self.gateway.api("GET", path + "a%40b%28c%29")[1]["device_id"], "a@b(c)")
        device = HubDevice.with_keys(self.gateway, "a@b(c)")
        raw = self.connected(device)
        self.published(raw, device.events + "n=1")
        self.published(raw, "devices/a%40b%28c%29/messages/events/n=2")
        self.assertEqual(self.subscribed(raw, device.messages), [1])
        headers = [headers for headers, _ in self.events("a@b(c)")]
        self.assertEqual([one["n"] for one in headers], ["1", "2"])
        self.assertEqual(headers[0]["ce_source"], f"/tenants/{self.gateway.TENANT}/devices/a%40b%28c%29")
        status, body, _ = self.gateway.api("POST", path + "a%40b%28c%29/credentials", {"kind": "key"})
        self.assertEqual(status, 201)
        self.assertEqual(self.code(f"a@b(c)@{self.gateway.TENANT}", body["key"], "x")[0], 4)

    # ---- telemetry ----

    def test_telemetry_of_a_stock_client(self):
        device = HubDevice.make(self.gateway, "stock")
        for transport, port in (("tcp", self.gateway.MQTTS_PORT), ("websockets", self.gateway.HTTPS_PORT)):
            with self.subTest(transport):
                self.publish_with_paho(device, transport, int(port))
        events = self.events("stock")
        self.assertEqual([payload for _, payload in events], ["tcp", "websockets"])
        headers = events[0][0]
        self.assertEqual(headers["content-type"], "application/json")
        self.assertEqual(headers["ce_subject"], "devices/stock/messages/events")
        self.assertEqual(headers["ce_iothubmessageid"], "m-1")
        self.assertEqual(headers["ce_iothubencoding"], "utf-8")
        self.assertEqual(headers["ce_iothubauthmethod"], "sas")
        self.assertEqual(headers["ce_iothubgenerationid"],
                         self.gateway.sql("select device_key from device where device_id = 'stock'"))
        self.assertEqual(headers["level"], "very high")
        self.assertEqual(headers["user_ce_type"], "mine")
        self.assertEqual(headers["ce_type"], "duragate.telemetry.v1")

    def publish_with_paho(self, device, transport, port):
        client = paho.Client(client_id=device.name, transport=transport, protocol=paho.MQTTv311)
        if transport == "websockets":
            client.ws_set_options(path="/$iothub/websocket?iothub-no-client-cert=true")
        client.tls_set(self.gateway.CA_FILE)
        client.username_pw_set(device.user, device.token())
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.connect("localhost", port)
        client.loop_start()
        self.assertTrue(connected.wait(30))
        topic = device.events + "%24.mid=m-1&%24.ct=application%2Fjson&%24.ce=utf-8&level=very%20high&ce_type=mine"
        client.publish(topic, transport, qos=1).wait_for_publish(30)
        client.disconnect()
        client.loop_stop()

    def test_refused_publishes(self):
        device = HubDevice.make(self.gateway, "refused")
        for topic, qos in ((device.events, 2), ("devices/stock/messages/events/", 1), ("sensors/1", 0),
                           ("$dg/events/alarm", 1), (device.events + "a=%FF", 1)):
            with self.subTest(topic, qos=qos):
                raw = self.connected(device)
                raw.send(publish(topic, b"x", qos, 1, 4))
                self.assertEqual(raw.until_closed(), [])
        self.assertEqual(self.events("refused"), [])

    def test_largest_message(self):
        """256 KiB with its properties, though a native packet may have so much as a whole only."""
        device = HubDevice.make(self.gateway, "large")
        raw = self.connected(device)
        self.published(raw, device.events + "a=b", b"x" * (256 * 1024 - 100))
        raw.send(publish(device.events + "a=b", b"x" * 256 * 1024, 1, 1, 4))
        self.assertEqual(raw.until_closed(), [])
        self.assertEqual([len(payload) for _, payload in self.events("large")], [256 * 1024 - 100])

    def test_will(self):
        device = HubDevice.make(self.gateway, "mortal")
        raw = self.connected(device, will=(device.events + "why=gone", "bye"))
        raw.socket.close()
        wait_until(lambda: self.events("mortal"), 20)
        [(headers, payload)] = self.events("mortal")
        self.assertEqual(payload, "bye")
        self.assertEqual(headers["why"], "gone")
        self.assertEqual(headers["iothub-MessageType"], "Will")
        self.assertEqual(headers["ce_iothubauthmethod"], "sas")
        for topic, flags in (("lost", 8), (device.events, 0x10), (device.events + "a=%FF", 8),
                             (device.events + "a" * 9000, 8)):
            with self.subTest(topic[:40], flags=flags):
                self.assertEqual(self.code(device.user, device.token(), device.name, will=(topic, "bye"),
                                           will_flags=flags)[0], 5)

    # ---- what the device gets ----

    def test_filters(self):
        device = HubDevice.make(self.gateway, "filters")
        raw = self.connected(device)
        filters = (device.messages, METHODS, "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "#",
                   "devices/stock/messages/devicebound/#", "$dg/commands/#")
        self.assertEqual(self.subscribed(raw, *filters, qos=2), [1, 1, 1, 1, 0x80, 0x80, 0x80])
        self.published(raw, device.events)

    def answer(self, raw, call, status, payload):
        """A method arrives; its request and what the caller heard of the answer."""
        received = Received(*raw.read(), 4)
        _, query = received.topic.split("/?$rid=")
        raw.send(publish(f"$iothub/methods/res/{status}/?$rid={query}", payload, 0, 1, 4))
        return received, call.result()

    def test_direct_methods(self):
        device = HubDevice.make(self.gateway, "called")
        raw = self.connected(device)
        self.assertEqual(Call(self.gateway, device.name).result()[0], 404)
        self.assertEqual(self.subscribed(raw, METHODS, qos=0), [0])
        received, answer = self.answer(raw, Call(self.gateway, device.name), 200, b'{"ok":1}')
        self.assertEqual(received.topic.split("/?$rid=")[0], "$iothub/methods/POST/reboot")
        self.assertEqual((received.qos, received.payload), (0, b'{"delay":1}'))
        self.assertEqual(answer, (200, {"status": 200, "payload": {"ok": 1}}))
        _, answer = self.answer(raw, Call(self.gateway, device.name), 0, b"")
        self.assertEqual(answer, (200, {"status": 0, "payload": None}))

    def post(self, device, **body):
        """The id of a new command."""
        status, body, _ = self.gateway.api("POST", f"/v1/tenants/{self.gateway.TENANT}/devices/{device.name}/commands",
                                           {"name": "blink", **body})
        self.assertEqual(status, 202, body)
        return body["command_id"]

    def states(self, id):
        lines = self.gateway.consume(topic=f"{self.gateway.TENANT}.commands", format="%s\n").splitlines()
        events = [json.loads(line) for line in lines]
        return [event["state"] for event in events if event.get("command_id") == id]

    def test_messages_from_the_cloud(self):
        device = HubDevice.make(self.gateway, "cloud")
        raw = self.connected(device, clean=False)
        self.assertEqual(self.subscribed(raw, device.messages), [1])
        id = self.post(device, payload={"n": 1}, wants_reply=False)
        received = Received(*raw.read(), 4)
        bag = received.topic[len("devices/cloud/messages/devicebound/"):]
        self.assertTrue(bag.startswith(
            f"%24.mid={id}&%24.to=%2Fdevices%2Fcloud%2Fmessages%2Fdevicebound&%24.exp=20"), bag)
        self.assertTrue(bag.endswith("&%24.ct=application%2Fjson&duragate-name=blink"), bag)
        self.assertEqual((received.qos, json.loads(received.payload)), (1, {"n": 1}))
        wait_until(lambda: self.states(id) == ["queued", "sent"], 20)
        raw.socket.close()  # without an acknowledgement: it comes again
        later = self.post(device, payload={"n": 2}, wants_reply=False)
        again = self.connected(device, clean=False)
        first, second = Received(*again.read(), 4), Received(*again.read(), 4)
        self.assertEqual([json.loads(one.payload)["n"] for one in (first, second)], [1, 2])
        self.assertEqual((first.dup, first.topic.split("&")[0], second.dup), (True, received.topic.split("&")[0], False))
        for one in (first, second):
            again.send(acknowledge(PUBACK, one.packet_id))
        for one in (id, later):
            wait_until(lambda: self.states(one) == ["queued", "sent", "delivered", "completed"], 20)

    def test_messages_wait_for_the_subscription(self):
        device = HubDevice.make(self.gateway, "later")
        id = self.post(device, payload="x", wants_reply=False)
        raw = self.connected(device)
        self.published(raw, device.events)
        self.assertEqual(self.states(id), ["queued"])
        raw.send(subscribe(device.messages))
        self.assertEqual([raw.read()[0] >> 4 for _ in range(2)], [SUBACK, 3])

    def test_command_with_a_reply_is_a_method(self):
        device = HubDevice.make(self.gateway, "queued")
        id = self.post(device)
        raw = self.connected(device)
        raw.send(subscribe(METHODS))
        self.assertEqual(raw.read()[0] >> 4, SUBACK)
        received = Received(*raw.read(), 4)
        self.assertEqual((received.qos, received.topic), (0, f"$iothub/methods/POST/blink/?$rid={id}"))
        raw.send(publish(f"$iothub/methods/res/200/?$rid={id}", b'{"done":1}', 0, 1, 4))
        wait_until(lambda: self.states(id) == ["queued", "sent", "delivered", "completed"], 20)

    def twin_request(self, raw, topic, payload=b""):
        """Status, query and parsed body of the answer to a request about the twin."""
        raw.send(publish(topic, payload, 0, 1, 4))
        received = Received(*raw.read(), 4)
        _, _, _, status, query = received.topic.split("/", 4)
        return int(status), query, json.loads(received.payload) if received.payload else None

    def test_twin(self):
        device = HubDevice.make(self.gateway, "twin")
        path = f"/v1/tenants/{self.gateway.TENANT}/devices/twin/twin"
        raw = self.connected(device)
        self.subscribed(raw, "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", qos=0)
        status, query, twin = self.twin_request(raw, "$iothub/twin/GET/?$rid=%7e1", b" ")
        self.assertEqual((status, query), (200, "?$rid=%7e1"))
        self.assertEqual(twin, {"desired": {"$version": 1}, "reported": {"$version": 1}})
        report = "$iothub/twin/PATCH/properties/reported/?$rid=r"
        self.assertEqual(self.twin_request(raw, report, b'{"fan":{"on":true,"rpm":900}}'),
                         (204, "?$rid=r&$version=2", None))
        self.assertEqual(self.twin_request(raw, report + "&$version=2", b'{"fan":{"rpm":null}}'),
                         (204, "?$rid=r&$version=3", None))
        for query, patch, expected in (("&$version=2", b"{}", 412), ("", b"[1]", 400), ("", b'{"a.b":1}', 400),
                                       ("", json.dumps({f"k{n}": "x" * 4000 for n in range(9)}).encode(), 413)):
            status, _, body = self.twin_request(raw, report + query, patch)
            self.assertEqual((status, body["errorCode"] // 1000), (expected, expected), body)
        for target in (21, 22):
            self.assertEqual(self.gateway.api("PATCH", path, {"desired": {"target": target}})[0], 200)
            received = Received(*raw.read(), 4)
            self.assertEqual((received.qos, received.topic),
                             (0, f"$iothub/twin/PATCH/properties/desired/?$version={target - 19}"))
            self.assertEqual(json.loads(received.payload), {"target": target, "$version": target - 19})
        self.assertEqual(self.twin_request(raw, "$iothub/twin/GET/?$rid=2")[2],
                         {"desired": {"target": 22, "$version": 3}, "reported": {"fan": {"on": True}, "$version": 3}})
        wait_until(lambda: self.gateway.api("GET", path)[1]["reported"] == {"fan": {"on": True}}, 20)

    def test_subscriptions_survive_a_new_token(self):
        device = HubDevice.make(self.gateway, "renews")
        raw = self.connected(device, clean=False)
        self.assertEqual(self.subscribed(raw, METHODS, device.messages), [1, 1])
        raw.socket.close()
        again = self.connection()
        self.assertTrue(again.resumed(device.user, device.token(900), client_id=device.name, version=4, clean=False))
        _, answer = self.answer(again, Call(self.gateway, device.name), 204, b"")
        self.assertEqual(answer[1]["status"], 204)

    def test_why(self):
        """People are told of it by the device's name."""
        device = HubDevice.make(self.gateway, "puzzled")
        self.code(device.user, device.token(-600), device.name)
        _, body, _ = self.gateway.api("GET", f"/v1/tenants/{self.gateway.TENANT}/devices/puzzled/recent")
        self.assertIn("bad user name or credential", json.dumps(body))


if __name__ == "__main__":
    unittest.main()
