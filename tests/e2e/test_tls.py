"""TLS stacks of devices against both server chains: each row logs in over MQTT and has a publish stored.
The rows are those of the table in docs/clients.md."""

import contextlib
import os
import re
import socket
import ssl
import subprocess
import threading
import unittest

from certificates import KEYS, Certificates
from harness import BUILDS, Gateway
from raw_mqtt import connect, publish

MBEDTLS = os.path.join(BUILDS, "asan/tests/e2e/mbedtls_client")
PAYLOAD = b"p" * 2000  # several fragments of 512 bytes
ONE_RECORD = b"p" * 300  # gnutls-cli sends no more of what it reads
ACKNOWLEDGED = b"\x20\x02\0\0", b"\x40\x02\x07\x07"  # CONNACK, PUBACK of MQTT 3.1.1
NAMES = {"ECDSA": "localhost", "RSA": "rsa.localhost"}  # of the server's certificates


class Row:
    """One stack set up in one way. cipher: words of what it says was agreed."""

    def __init__(self, stack, version, chain, what, options=(), cipher="", identity=None, works=True,
                 payload=PAYLOAD):
        self.stack, self.version, self.chain, self.what = stack, version, chain, what
        self.options, self.cipher, self.identity, self.works = options, cipher, identity, works
        self.payload = payload

    def __str__(self):
        return f"| {self.stack} | {self.version} | {self.chain} | {self.what} | {'yes' if self.works else 'refused'} |"


def with_identities(stack, versions):
    return [Row(stack, version, "ECDSA", f"client certificate {key}", identity=key)
            for version in versions for key in KEYS]


# gnutls-cli: what is left of its defaults.
GNUTLS = {"1.2": "NORMAL:-VERS-ALL:+VERS-TLS1.2", "1.3": "NORMAL:-VERS-ALL:+VERS-TLS1.3",
          "1.1": "NORMAL:-VERS-ALL:+VERS-TLS1.1"}
RSA_ONLY = "rsa_pss_rsae_sha256:rsa_pkcs1_sha256"

ROWS = [
    Row("OpenSSL", "1.3", "ECDSA", "defaults"),
    Row("OpenSSL", "1.3", "ECDSA", "P-256 only", ("-groups", "P-256"), "prime256v1"),
    Row("OpenSSL", "1.3", "ECDSA", "P-384 only", ("-groups", "P-384"), "secp384r1"),
    Row("OpenSSL", "1.3", "ECDSA", "AES-128-CCM", ("-ciphersuites", "TLS_AES_128_CCM_SHA256"), "AES_128_CCM_SHA256"),
    Row("OpenSSL", "1.3", "ECDSA", "AES-128-CCM-8", ("-ciphersuites", "TLS_AES_128_CCM_8_SHA256"), "CCM_8"),
    Row("OpenSSL", "1.3", "ECDSA", "no server name", ("-noservername",)),
    Row("OpenSSL", "1.3", "ECDSA", "fragments of 512 bytes", ("-maxfraglen", "512")),
    Row("OpenSSL", "1.3", "RSA", "no ECDSA signatures", ("-sigalgs", RSA_ONLY)),
    Row("OpenSSL", "1.2", "ECDSA", "ECDHE-ECDSA-AES128-GCM", ("-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        "ECDHE-ECDSA-AES128-GCM-SHA256"),
    Row("OpenSSL", "1.2", "ECDSA", "ECDHE-ECDSA-CHACHA20", ("-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"), "CHACHA20"),
    Row("OpenSSL", "1.2", "ECDSA", "ECDHE-ECDSA-AES128-CCM", ("-cipher", "ECDHE-ECDSA-AES128-CCM"), "AES128-CCM"),
    Row("OpenSSL", "1.2", "ECDSA", "ECDHE-ECDSA-AES128-CCM8", ("-cipher", "ECDHE-ECDSA-AES128-CCM8"), "AES128-CCM8"),
    Row("OpenSSL", "1.2", "RSA", "ECDHE-RSA-AES128-GCM", ("-cipher", "ECDHE-RSA-AES128-GCM-SHA256"), "ECDHE-RSA"),
    Row("OpenSSL", "1.2", "ECDSA", "no server name, no tickets", ("-noservername", "-no_ticket")),
    Row("OpenSSL", "1.2", "ECDSA", "fragments of 512 bytes", ("-maxfraglen", "512")),
    *with_identities("OpenSSL", ("1.3", "1.2")),
    Row("OpenSSL", "1.2", "ECDSA", "CBC", ("-cipher", "ECDHE-ECDSA-AES128-SHA256"), works=False),
    Row("OpenSSL", "1.2", "RSA", "RSA key exchange", ("-cipher", "AES128-GCM-SHA256"), works=False),
    Row("GnuTLS", "1.3", "ECDSA", "defaults"),
    Row("GnuTLS", "1.3", "ECDSA", "no server name, one key share", ("--disable-sni", "--single-key-share")),
    Row("GnuTLS", "1.3", "ECDSA", "records of 512 bytes", ("--recordsize=512",), payload=ONE_RECORD),
    Row("GnuTLS", "1.3", "RSA", "no ECDSA signatures", ":-SIGN-ALL:+SIGN-RSA-PSS-RSAE-SHA256:+SIGN-RSA-SHA256"),
    Row("GnuTLS", "1.2", "ECDSA", "AES-128-CCM-8", ":-CIPHER-ALL:+AES-128-CCM-8", "AES-128-CCM-8"),
    Row("GnuTLS", "1.2", "ECDSA", "no tickets, no extended master secret", ":%NO_TICKETS:%NO_SESSION_HASH"),
    Row("GnuTLS", "1.2", "RSA", "ECDHE-RSA only", ":-KX-ALL:+ECDHE-RSA", "ECDHE"),
    *with_identities("GnuTLS", ("1.3", "1.2")),
    Row("GnuTLS", "1.1", "ECDSA", "defaults", works=False),
    Row("Mbed TLS", "1.2", "ECDSA", "defaults"),
    Row("Mbed TLS", "1.2", "ECDSA", "fragments of 512 bytes, no tickets, no extended master secret, no server name",
        ("fragments=512", "no-ticket", "no-ems", "no-sni")),
    Row("Mbed TLS", "1.2", "ECDSA", "AES-128-CCM-8", ("cipher=TLS-ECDHE-ECDSA-WITH-AES-128-CCM-8",), "CCM-8"),
    Row("Mbed TLS", "1.2", "RSA", "ECDHE-RSA-AES128-GCM, fragments of 2048 bytes",
        ("cipher=TLS-ECDHE-RSA-WITH-AES-128-GCM-SHA256", "fragments=2048"), "ECDHE-RSA"),
    *with_identities("Mbed TLS", ("1.2",)),
    Row("Python ssl", "1.3", "ECDSA", "resumption"),
    Row("Python ssl", "1.2", "ECDSA", "resumption"),
    Row("Python ssl", "1.3", "ECDSA", "resumption with a client certificate", identity="P-256"),
    Row("Python ssl", "1.2", "ECDSA", "resumption with a client certificate", identity="P-256"),
]


class Stacks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.certificates = Certificates(cls.gateway.directory)
        path = cls.certificates.path
        cls.certificates.authority("rsa-ca", key="RSA-2048")
        cls.certificates.signed("rsa", path("rsa-ca"), NAMES["RSA"], "subjectAltName=DNS:localhost,IP:127.0.0.1",
                                key="RSA-2048")
        cls.gateway.environment.update({"DURAGATE_CFG_TLS__RSA_CERTIFICATE_FILE": path("rsa.pem"),
                                        "DURAGATE_CFG_TLS__RSA_KEY_FILE": path("rsa.key")})
        cls.gateway.up()
        cls.trust = path("trust.pem")
        with open(cls.trust, "w", encoding="ascii") as bundle, open(cls.gateway.CA_FILE, encoding="ascii") as file:
            bundle.write(file.read() + cls.certificates.pem("rsa-ca"))
        cls.make_devices()

    @classmethod
    def make_devices(cls):
        tenant = f"/v1/tenants/{cls.gateway.TENANT}"
        cls.certificates.authority("devices")
        status, body, _ = cls.gateway.api("PUT", tenant + "/certificate-authorities/devices",
                                          {"certificate": cls.certificates.pem("devices")})
        assert status == 201, body
        for key in KEYS:
            cls.certificates.signed(key, cls.certificates.path("devices"), f"dev-{key}", key=key)
            cls.gateway.device(f"dev-{key}")

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()

    def packets(self, row, number):
        if row.identity:
            login = connect(version=4, client_id="")
        else:
            login = connect(self.gateway.MQTT_USER, self.gateway.DEVICE_KEY, version=4)
        return login + publish(f"tls/{number}", row.payload, packet_id=0x0707, version=4)

    def command(self, row):
        port, certificate = self.gateway.MQTTS_PORT, self.certificates.path(f"{row.identity}.pem")
        key, options = self.certificates.path(f"{row.identity}.key"), list(row.options)
        if row.stack == "OpenSSL":
            identity = ["-cert", certificate, "-key", key] if row.identity else []
            return ["openssl", "s_client", "-brief", "-ign_eof", "-CAfile", self.trust, "-verify_return_error",
                    "-tls" + row.version.replace(".", "_"), "-connect", f"localhost:{port}", *identity, *options]
        if row.stack == "GnuTLS":
            identity = ["--x509certfile", certificate, "--x509keyfile", key] if row.identity else []
            priority = GNUTLS[row.version]
            if isinstance(row.options, str):
                priority, options = priority + row.options, []
            return ["gnutls-cli", "--x509cafile", self.trust, "--priority", priority, "-p", port, *identity,
                    *options, "localhost"]
        identity = ["cert=" + certificate, "key=" + key] if row.identity else []
        return [MBEDTLS, "localhost", port, self.trust, *identity, *options]

    def run_program(self, row, number):
        """What the program says, until the publish is acknowledged or it ends."""
        process = subprocess.Popen(self.command(row), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT)
        limit = threading.Timer(30, process.kill)
        limit.start()
        said = b""
        try:
            process.stdin.write(self.packets(row, number))
            process.stdin.flush()
            while not all(packet in said for packet in ACKNOWLEDGED):
                more = process.stdout.read1(65536)
                if not more:
                    break
                said += more
        except BrokenPipeError:
            said += process.stdout.read()
        finally:
            limit.cancel()
            process.kill()
            with contextlib.suppress(BrokenPipeError), process:
                pass
        return said

    def agreed(self, row, said):
        """Version, the server's name and the cipher, in the words of each program."""
        version = {"OpenSSL": f"Protocol version: TLSv{row.version}", "GnuTLS": rf"Description: \(TLS{row.version}",
                   "Mbed TLS": f"TLSv{row.version} "}[row.stack]
        name = {"OpenSSL": "Peer certificate: CN = ", "GnuTLS": "- subject `CN=", "Mbed TLS": "CN="}[row.stack]
        for words in (version, name + re.escape(NAMES[row.chain]) + r"\b", re.escape(row.cipher) or "."):
            self.assertRegex(said, words)

    def run_python(self, row, number):
        context = ssl.create_default_context(cafile=self.trust)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[f"TLSv{row.version.replace('.', '_')}"]
        if row.identity:
            context.load_cert_chain(self.certificates.path(f"{row.identity}.pem"),
                                    self.certificates.path(f"{row.identity}.key"))
        session = None
        for attempt in range(2):
            with socket.create_connection(("127.0.0.1", int(self.gateway.MQTTS_PORT)), timeout=20) as stream, \
                    context.wrap_socket(stream, server_hostname="localhost", session=session) as secure:
                secure.sendall(self.packets(row, number))
                said = b""
                while not all(packet in said for packet in ACKNOWLEDGED):
                    more = secure.recv(4096)
                    self.assertTrue(more, (attempt, said))
                    said += more
                self.assertEqual(secure.session_reused, attempt == 1)
                session = secure.session
                secure.unwrap()

    def check(self, row, number):
        if row.stack == "Python ssl":
            self.run_python(row, number)
            return
        said = self.run_program(row, number)
        text = said.decode(errors="replace")
        stored = all(packet in said for packet in ACKNOWLEDGED)
        self.assertEqual(stored, row.works, text)
        if stored:
            self.agreed(row, text)

    def test_every_row(self):
        for number, row in enumerate(ROWS):
            with self.subTest(str(row)):
                self.check(row, number)
        events = self.gateway.consume(format="%h|%S\n").splitlines()
        for number, row in enumerate(ROWS):
            with self.subTest(stored=str(row)):
                kept = [line for line in events if f"ce_subject=tls/{number}," in line]
                self.assertEqual(len(kept), (1 if row.works else 0) + (row.stack == "Python ssl"))
                self.assertTrue(all(line.endswith(f"|{len(row.payload)}") for line in kept))


if __name__ == "__main__":
    unittest.main()
