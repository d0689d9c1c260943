"""Keys and certificates for tests, made with the openssl program."""

import subprocess

KEYS = {
    "P-256": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
    "P-384": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes"],
    "RSA-2048": ["-newkey", "rsa:2048", "-nodes"],
}
KEY = KEYS["P-256"]


class Certificates:
    """Files NAME.pem and NAME.key in a directory."""

    def __init__(self, directory):
        self.directory = directory

    def path(self, name):
        return f"{self.directory}/{name}"

    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30,
                              check=False)
        if done.returncode != 0:
            raise AssertionError("openssl: " + done.stderr)
        return done.stdout.strip()

    def pem(self, name):
        with open(self.path(name + ".pem"), encoding="ascii") as file:
            return file.read()

    def self_signed(self, name, common_name=None, days=30):
        self.openssl("req", "-x509", *KEY, "-days", str(days), "-subj", f"/CN={common_name or name}",
                     "-keyout", self.path(name + ".key"), "-out", self.path(name + ".pem"))

    def authority(self, name, common_name=None, key="P-256"):
        self.openssl("req", "-x509", *KEYS[key], "-days", "30", "-subj", f"/CN={common_name or name}",
                     "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                     "-keyout", self.path(name + ".key"), "-out", self.path(name + ".pem"))

    def signed(self, name, authority, common_name, extensions="extendedKeyUsage=clientAuth", days=30,
               key="P-256"):
        with open(self.path(name + ".ext"), "w", encoding="ascii") as file:
            file.write("basicConstraints=critical,CA:FALSE\n" + extensions + "\n")
        self.openssl("req", *KEYS[key], "-subj", f"/CN={common_name}", "-keyout", self.path(name + ".key"),
                     "-out", self.path(name + ".csr"))
        self.openssl("x509", "-req", "-in", self.path(name + ".csr"), "-CA", f"{authority}.pem",
                     "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", str(days),
                     "-extfile", self.path(name + ".ext"), "-out", self.path(name + ".pem"))

    def proof(self, authority, code, name="proof"):
        """The PEM with which an authority shows that it belongs to the tenant of this code."""
        self.signed(name, self.path(authority), code, "keyUsage=digitalSignature", days=1)
        return self.pem(name)

    def fingerprint(self, name, digest="sha256"):
        text = self.openssl("x509", "-in", self.path(name + ".pem"), "-noout", "-fingerprint",
                            "-" + digest)
        return text.split("=")[1].replace(":", "").lower()

    def serial(self, name):
        return self.openssl("x509", "-in", self.path(name + ".pem"), "-noout", "-serial")
