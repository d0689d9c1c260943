"""A back end written for Azure IoT Hub, request by request: tokens of an access policy, and its REST calls."""

import base64
import hashlib
import hmac
import http.client
import json
import ssl
import time
import urllib.parse

HOST = "hub.duragate.test"
RIGHTS = ["registry_read", "registry_write", "service_connect"]


def token(key, policy, resource=HOST, expiry=None, encode=True):
    """SharedAccessSignature of a policy for a resource."""
    resource = urllib.parse.quote(resource, safe="") if encode else resource
    expiry = int(time.time() + 3600 if expiry is None else expiry)
    digest = hmac.new(base64.b64decode(key), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = urllib.parse.quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}"


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.raw = status, headers, body
        self.body = json.loads(body) if body else None


class Service:
    """The service API of a gateway whose iothub.hosts names HOST."""

    def __init__(self, gateway, name="service", rights=None):
        self.gateway, self.name = gateway, name
        path = f"/v1/tenants/{gateway.TENANT}/access-policies/{name}"
        status, made, _ = gateway.api("PUT", path, {"rights": rights or RIGHTS})
        assert status == 201, (status, made)
        self.key = made["primary_key"]
        self.secondary_key = made["secondary_key"]
        self.connection = None

    def open(self):
        """A connection that stays, as the SDK's agent keeps it."""
        if not self.connection:
            context = ssl.create_default_context(cafile=self.gateway.CA_FILE)
            port = urllib.parse.urlsplit(self.gateway.HTTPS_URL).port
            self.connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=60)
        return self.connection

    def close(self):
        if self.connection:
            self.connection.close()

    def call(self, method, path, body=None, authorization=None, version="2021-04-12", **headers):
        """A header is named with '_' for '-'; None leaves Authorization out."""
        if version:
            path += ("&" if "?" in path else "?") + "api-version=" + version
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if authorization is None:
            authorization = token(self.key, self.name)
        if authorization:
            headers["Authorization"] = authorization
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers["Content-Type"] = "application/json; charset=utf-8"
        connection = self.open()
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        except Exception:
            connection.close()
            raise
