"""Certificate authorities: who may register one, and whose devices its certificates are."""

import subprocess
import unittest

from certificates import Certificates
from harness import wait_until
from test_api import ApiTest


class Authorities(ApiTest):
    def setUp(self):
        self.certificates = Certificates(self.gateway.directory)

    def authority(self, common_name=None):
        name = self.name("authority")
        self.certificates.authority(name, common_name)
        return name

    def admin(self, tenant):
        return self.api_key(tenant, "admin")["bearer"]

    def code(self, tenant, key=None):
        return self.call("GET", tenant, expect=200, key=key).body["registration_code"]

    def logs_in(self, certificate, *more):
        directory = self.gateway.directory
        done = subprocess.run(
            ["mosquitto_pub", "-h", "localhost", "-p", self.gateway.MQTTS_PORT, "--cafile", self.gateway.CA_FILE,
             "--cert", f"{directory}/{certificate}.pem", "--key", f"{directory}/{certificate}.key",
             "-q", "1", "-t", "x", "-m", "x", *more], capture_output=True, text=True, timeout=30, check=False)
        return done.returncode == 0

    def test_a_tenant_proves_that_it_holds_the_key(self):
        tenant, other = self.tenant(), self.tenant()
        key, ca, foreign = self.admin(tenant), self.authority(), self.authority()
        code = self.code(tenant, key)
        self.assertNotEqual(code, self.code(other))
        path = tenant + "/certificate-authorities/ca"
        pem = self.certificates.pem(ca)
        for proof in (None, pem, "nonsense", self.certificates.proof(ca, self.code(other)),
                      self.certificates.proof(foreign, code), self.certificates.proof(ca, "someone")):
            with self.subTest(proof=str(proof)[:80]):
                body = {"certificate": pem} | ({} if proof is None else {"proof": proof})
                answer = self.refused(422, "registration_code" if proof != "nonsense" else "PEM", "PUT", path,
                                      body, key=key)
                self.assertTrue(answer.body["detail"].startswith("/proof: "), answer.text)
        body = {"certificate": pem, "proof": self.certificates.proof(ca, code)}
        self.assertNotIn("proof", self.call("PUT", path, body, 201, key=key).body)
        self.call("PUT", path, {"certificate": pem}, 200, key=key)
        self.refused(422, "/proof", "PATCH", path, {"certificate": self.certificates.pem(foreign)}, key=key)
        self.call("PATCH", path, {"certificate": self.certificates.pem(foreign),
                                  "proof": self.certificates.proof(foreign, code)}, 200, key=key)

    def test_there_is_a_limit_for_each_tenant(self):
        tenant = self.tenant()
        for number in range(64):
            body = {"certificate": self.certificates.pem(self.authority())}
            self.call("PUT", f"{tenant}/certificate-authorities/ca{number}", body, 201)
        body = {"certificate": self.certificates.pem(self.authority())}
        self.refused(422, "as many", "PUT", tenant + "/certificate-authorities/more", body)
        self.call("PUT", tenant + "/certificate-authorities/ca0", body, 200)
        self.call("PUT", self.tenant() + "/certificate-authorities/more", body, 201)

    def test_a_certificate_of_two_tenants_needs_a_user_name(self):
        victim, other = self.tenant(), self.tenant()
        ca = self.authority("Shared CA")
        self.certificates.signed("shared", self.certificates.path(ca), "dev1")
        body = {"certificate": self.certificates.pem(ca)}
        for tenant in (victim, other):
            self.call("PUT", tenant + "/devices/dev1", {}, 201)
        self.call("PUT", victim + "/certificate-authorities/ca", body, 201)
        wait_until(lambda: self.logs_in("shared"), 2)
        for number in range(20):  # of the same name, with other keys
            self.call("PUT", f"{other}/certificate-authorities/twin{number}",
                      {"certificate": self.certificates.pem(self.authority("Shared CA"))}, 201)
        self.assertTrue(self.logs_in("shared"))
        self.call("PUT", other + "/certificate-authorities/ca", body, 201)
        named = "-u", "dev1@" + victim.split("/")[-1]
        wait_until(lambda: not self.logs_in("shared"), 2)
        self.assertTrue(self.logs_in("shared", *named))
        self.assertIn("registry.ambiguous_authority", self.gateway.log())
        self.call("DELETE", other, expect=204)
        wait_until(lambda: self.logs_in("shared"), 2)


if __name__ == "__main__":
    unittest.main()
