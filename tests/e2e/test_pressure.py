"""One tenant, one stranger, one slow database: the others do not suffer."""

import collections
import os
import resource
import signal
import socket
import threading
import time
import unittest
import urllib.request

from harness import Gateway, wait_until
from test_api import ApiTest


class SlowRegistry(ApiTest):
    def test_slow_requests_of_one_tenant(self):
        """Other tenants are served, the tenant itself is told to wait, nothing counts as lost."""
        tenant, other = self.tenant(), self.tenant()
        key, other_key = (self.api_key(t, "reader")["bearer"] for t in (tenant, other))
        for path, bearer in ((tenant, key), (other, other_key)):
            self.call("GET", path + "/devices", expect=200, key=bearer)
        answers = []

        def ask():
            answers.append(self.call("GET", tenant + "/certificate-authorities", key=key))

        with self.gateway.locked("certificate_authority"):
            threads = [threading.Thread(target=ask) for _ in range(60)]
            started = time.monotonic()
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            while time.monotonic() - started < 2.3:
                before = time.monotonic()
                self.call("GET", other + "/devices", expect=200, key=other_key)
                self.assertLess(time.monotonic() - before, 1)
                time.sleep(0.1)
            for thread in threads:
                thread.join()
            self.assertLess(time.monotonic() - started, 5)
        statuses = collections.Counter(answer.status for answer in answers)
        self.assertEqual(set(statuses), {429, 503}, statuses)
        for answer in answers:
            self.assertTrue(answer.headers["Retry-After"])
        self.assertNotIn("connection_lost", self.gateway.log())
        self.call("GET", tenant + "/certificate-authorities", expect=200, key=key)

    def test_a_key_of_a_tenant_whose_name_was_given_away(self):
        """Also while the gateway has not heard of the change."""
        tenant = self.tenant()
        key = self.api_key(tenant, "admin")["bearer"]
        self.call("GET", tenant, expect=200, key=key)
        pids = self.gateway.sql("select pid from pg_stat_activity where application_name = 'duragate'"
                                " and query like '%registry_change%' and pid <> pg_backend_pid()").split()
        self.assertTrue(pids)
        for pid in pids:
            os.kill(int(pid), signal.SIGSTOP)
        try:
            self.call("DELETE", tenant, expect=204)
            self.call("PUT", tenant, {}, 201)
            self.call("PUT", tenant + "/devices/d", {}, 201)
            for method, path, body in (("GET", "", None), ("GET", "/devices", None), ("GET", "/devices/d", None),
                                       ("PUT", "/devices/e", {}), ("PATCH", "/devices/d", {"enabled": False}),
                                       ("POST", "/devices/d/credentials", {"kind": "key"}),
                                       ("POST", "/api-keys", {"roles": ["admin"]}), ("DELETE", "/devices/d", None)):
                self.assertIn(self.call(method, tenant + path, body, key=key).status, (401, 403, 404), (method, path))
        finally:
            for pid in pids:
                os.kill(int(pid), signal.SIGCONT)
        wait_until(lambda: self.call("GET", tenant, key=key).status == 401, 10)
        self.call("GET", tenant + "/devices/d", expect=200)


class BigTenant(ApiTest):
    DEVICES = 100000

    def test_deletion(self):
        """At once for everybody who looks, also with more devices than one statement can delete."""
        tenant, other = self.tenant(), self.device()
        name = tenant.rpartition("/")[2]
        self.gateway.sql(
            "with made as (insert into device (tenant_key, device_id, partition) select tenant_key, 'd' || i, 1"
            f" from tenant, generate_series(1, {self.DEVICES}) i where name = '{name}' returning device_key)"
            " insert into credential (device_key, name, kind, thumbprint)"
            " select device_key, 'c', 'x509', repeat('a', 64) from made")
        key = self.gateway.sql(f"select tenant_key from tenant where name = '{name}'")
        path = tenant + "/devices/d1"
        tag = self.call("GET", path, expect=200).etag
        self.call("DELETE", tenant, expect=204)
        self.call("GET", path, expect=404)
        self.call("PUT", tenant, {}, 201)
        self.assertEqual(self.call("GET", tenant + "/devices", expect=200).body["items"], [])
        self.call("PUT", path, {}, 201)
        self.call("PUT", path, {}, 412, If_Match=tag)

        def left():
            before = time.monotonic()
            self.call("PATCH", other, {"metadata": {"at": before}}, 200)
            self.assertLess(time.monotonic() - before, 1)
            return int(self.gateway.sql(f"select count(*) from device where tenant_key = {key}"))

        self.assertGreater(left(), 0)
        wait_until(lambda: left() == 0, 120)
        self.call("GET", path, expect=200)
        self.call("DELETE", tenant, expect=204)

    def test_keys_of_a_tenant_are_limited(self):
        tenant = self.tenant()
        name = tenant.rpartition("/")[2]
        self.gateway.sql(
            "insert into api_key (key_id, tenant_key, roles, secret, master_key_id)"
            f" select '{name}-' || i, tenant_key, 4, 'x', 'x' from tenant, generate_series(1, 999) i where name = '{name}'")
        self.api_key(tenant, "reader")
        self.refused(422, "API keys", "POST", tenant + "/api-keys", {"roles": ["reader"]})
        self.call("DELETE", tenant, expect=204)


class Strangers(ApiTest):
    def test_silent_connections(self):
        """More than may be there at once: a device still gets in over TLS."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(9000, hard), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        silent = []
        try:
            for _ in range(4300):
                silent.append(socket.create_connection(("127.0.0.1", int(self.gateway.MQTTS_PORT)), timeout=5))
            started = time.monotonic()
            self.gateway.publish("-q", "1", "-t", "t", "-m", "x", "--cafile", self.gateway.CA_FILE,
                                 port=self.gateway.MQTTS_PORT)
            self.assertLess(time.monotonic() - started, 3)
        finally:
            for peer in silent:
                peer.close()

    def raw(self, request, host="127.0.0.1"):
        """The status lines that the bytes cause before the gateway waits or closes."""
        port = int(self.host.rpartition(":")[2])
        with socket.create_connection((host, port), timeout=1) as peer:
            peer.sendall(request)
            got = b""
            try:
                while data := peer.recv(65536):
                    got += data
            except TimeoutError:
                pass
        return [line[9:12].decode() for line in got.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]

    def test_nobody_sends_a_body_without_a_key(self):
        for key, statuses in (("", ["401"]), ("Authorization: Bearer a.b\r\n", ["401"]),
                              (f"Authorization: Bearer {self.gateway.API_KEY}\r\n", ["100"])):
            with self.subTest(key=key[:24]):
                head = ("PUT /v1/tenants/x/devices/y HTTP/1.1\r\nHost: x\r\nContent-Length: 81920\r\n"
                        f"Expect: 100-continue\r\n{key}\r\n")
                self.assertEqual(self.raw(head.encode()), statuses)

    def test_fields_given_twice(self):
        path = self.device()
        key = f"Authorization: Bearer {self.gateway.API_KEY}\r\n"
        for method, fields in (("GET", key + "Authorization: Bearer x.y\r\n"),
                               ("PUT", key + 'If-Match: *\r\nIf-Match: "1"\r\n'),
                               ("PUT", key + "If-None-Match: *\r\nIf-None-Match: *\r\n")):
            body = "{}" if method == "PUT" else ""
            request = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {len(body)}\r\n\r\n{body}"
            self.assertEqual(self.raw(request.encode()), ["400"], fields)

    def test_smuggling(self):
        """A front that ends lines at LF sees one request here; so does the gateway, and refuses it."""
        inner = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        body = b"2;\nxx\r\n" + b"%x" % len(inner) + b"\r\n" + inner + b"\r\n0\r\n\r\n"
        head = (f"PUT {self.device()} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.gateway.API_KEY}\r\n"
                "Transfer-Encoding: chunked\r\n\r\n")
        self.assertEqual(self.raw(head.encode() + body), ["400"])


class PlainText(unittest.TestCase):
    def test_keys_stay_on_the_machine(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))
            except OSError:
                self.skipTest("this machine has only loopback")
            own = probe.getsockname()[0]
        for allowed in ("false", "true"):
            gateway = Gateway(settings={"DURAGATE_CFG_SECURITY__ALLOW_PLAINTEXT_PASSWORDS": allowed})
            port = gateway.ports["http"]
            gateway.environment["DURAGATE_CFG_MANAGEMENT__BIND"] = f"0.0.0.0:{port}"
            gateway.up()
            try:
                self.assertEqual(gateway.api("GET", "/v1/tenants", url=f"http://127.0.0.1:{port}")[0], 200)
                status, body, _ = gateway.api("GET", "/v1/tenants", url=f"http://{own}:{port}")
                self.assertEqual(status, 200 if allowed == "true" else 403, body)
                with urllib.request.urlopen(f"http://{own}:{port}/healthz", timeout=5) as answer:
                    self.assertEqual(answer.status, 200)
            finally:
                gateway.close()


if __name__ == "__main__":
    unittest.main()
