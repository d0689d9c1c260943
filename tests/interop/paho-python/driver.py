"""Eclipse Paho's Python client as mqtt_clients.py drives it: the commands and the lines are described there."""

import os
import sys
import time

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

EXPIRY_S = 300
ENV = {name[3:]: value for name, value in os.environ.items() if name.startswith("DG_")}
is_mqtt5, is_clean, may_reconnect = ENV["VERSION"] == "5", ENV["CLEAN"] == "1", ENV["RECONNECT"] == "1"


def say(*words):
    print(*words, flush=True)


def on_connect(_client, _context, flags, code, _properties=None):
    code = getattr(code, "value", code)
    if code == 0:
        say("connected", flags["session present"])
        return
    say("refused", code)
    os._exit(0)


def on_disconnect(_client, _context, code, _properties=None):
    code = getattr(code, "value", 0)
    say("lost", code if code >= 128 else "-")
    if not may_reconnect:
        os._exit(0)


def on_subscribe(_client, _context, _message_id, granted, _properties=None):
    say("granted", getattr(granted[0], "value", granted[0]))


def publish(messages):
    """(topic, payload, qos, properties) of each; waits until all are acknowledged."""
    sent = [client.publish(topic, payload, qos, properties=properties)
            for topic, payload, qos, properties in messages]
    for message in sent:
        message.wait_for_publish()
    say("published", len(sent))


def described():
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "text/plain"
    properties.UserProperty = ("colour", "blue")
    return properties


def aliased():
    properties = Properties(PacketTypes.PUBLISH)
    properties.TopicAlias = 1
    return properties


def connect():
    more = {}
    if is_mqtt5:
        more = {"clean_start": is_clean, "properties": Properties(PacketTypes.CONNECT)}
        if not is_clean:
            more["properties"].SessionExpiryInterval = EXPIRY_S
    client.connect(ENV["HOST"], int(ENV["PORT"]), **more)
    client.loop_start()


def obey(command, *words):
    if command == "connect":
        connect()
    elif command == "publish":
        topic, qos, count, size = words[0], *map(int, words[1:])
        publish([(topic, str(i).encode().ljust(size, b"x"), qos, None) for i in range(count)])
    elif command == "describe":
        publish([(words[0], b"x", 1, described())])
    elif command == "alias":
        publish([(words[0] if i == 0 else "", b"x", 1, aliased()) for i in range(int(words[1]))])
    elif command == "subscribe":
        client.subscribe(words[0], 1)
    elif command == "disconnect":
        client.disconnect()


class Client(paho.Client):
    """The library's own loop ends for good when TLS breaks off while it writes."""

    def loop_forever(self, *arguments, **more):
        broken = False
        while True:
            try:
                if broken:
                    self.reconnect()
                return super().loop_forever(*arguments, **more)
            except OSError:
                broken = True
                time.sleep(0.1)


client = Client(ENV["CLIENT_ID"], None if is_mqtt5 else is_clean,
                protocol=paho.MQTTv5 if is_mqtt5 else paho.MQTTv311,
                transport="websockets" if ENV["TRANSPORT"] == "wss" else "tcp")
client.username_pw_set(ENV["USER"], ENV["PASSWORD"])
client.reconnect_delay_set(1, 1)
if ENV["TRANSPORT"] != "tcp":
    client.tls_set(ENV["CA_FILE"])
if ENV["TRANSPORT"] == "wss":
    client.ws_set_options("/mqtt")
if ENV["WILL"]:
    client.will_set(ENV["WILL"], "gone", 1)
client.on_connect, client.on_disconnect, client.on_subscribe = on_connect, on_disconnect, on_subscribe
for line in sys.stdin:
    obey(*line.split())
