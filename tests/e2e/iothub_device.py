"""What a client written for Azure IoT Hub says over MQTT, for tests that say it byte by byte."""

import base64
import hashlib
import hmac
import time
import urllib.parse


def token(resource, key, seconds=600, encode=urllib.parse.quote_plus):
    """A SAS token for a resource that is good for so many seconds."""
    expiry = str(int(time.time()) + seconds)
    resource = encode(resource)
    signature = hmac.new(base64.b64decode(key), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    return (f"SharedAccessSignature sr={resource}"
            f"&sig={urllib.parse.quote_plus(base64.b64encode(signature))}&se={expiry}")


class HubDevice:
    """A device with a key, as IoT Hub's clients know it."""

    def __init__(self, gateway, name, key):
        self.host, self.name, self.key = gateway.IOTHUB_HOST, name, key

    @classmethod
    def make(cls, gateway, name):
        path = f"/v1/tenants/{gateway.TENANT}/devices/{name}"
        status, body, _ = gateway.api("PUT", path, {})
        assert status in (200, 201), (status, body)
        return cls.with_keys(gateway, name)

    @classmethod
    def with_keys(cls, gateway, name):
        path = f"/v1/tenants/{gateway.TENANT}/devices/{urllib.parse.quote(name, safe='')}/credentials"
        status, body, _ = gateway.api("POST", path, {"name": "iothub", "kind": "sas"})
        assert status == 201, (status, body)
        return cls(gateway, name, body["primary_key"])

    @property
    def user(self):
        return f"{self.host}/{self.name}/?api-version=2021-04-12&DeviceClientType=test%2F1"

    @property
    def resource(self):
        return f"{self.host}/devices/{self.name}"

    @property
    def events(self):
        return f"devices/{self.name}/messages/events/"

    @property
    def messages(self):
        return f"devices/{self.name}/messages/devicebound/#"

    def token(self, seconds=600):
        return token(self.resource, self.key, seconds)
