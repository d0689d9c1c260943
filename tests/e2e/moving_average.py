"""A series of temperatures with known alerts, for the examples that compute a moving average."""

import json
from datetime import datetime, timedelta, timezone

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

# Seconds after the start and degrees; the window is 60 s, the threshold 30.
SERIES = {
    # (20 + 50) / 2 = 35 at 10 s; below at 20 s (30); above again at 100 s: what is older is out.
    "oven": [(0, 20.0), (10, 50.0), (20, 20.0), (30, 20.0), (100, 31.0), (110, 33.0)],
    "fridge": [(0, 4.0), (30, 5.0), (60, 6.0), (90, 30.0)],  # never
    "attic": [(0, 29.0), (20, 30.0), (40, 31.0), (59, 30.5)],  # 30 is not above 30; 30.125 at 59 s
}
LENGTH = timedelta(seconds=300)  # after so long nothing of it is in a window
ALERTS = {"oven": [10, 100], "fridge": [], "attic": [59]}


def text(time):
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def start_time():
    """Within the window in which a device's own time is believed."""
    return datetime.now(timezone.utc).replace(microsecond=0) - timedelta(minutes=10)


def expected(start):
    """The ids of the alerts, sorted."""
    return sorted(f"{device}/{text(start + timedelta(seconds=second))}"
                  for device, seconds in ALERTS.items() for second in seconds)


def cloud_event(identity, time):
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = [("specversion", "1.0"), ("id", identity), ("source", "/sensor"),
                               ("type", "example.temperature"), ("time", text(time))]
    return properties


def publish(gateway, start, keys):
    """The series, in the order of time; and what is no temperature. keys: {device: key}."""
    clients = {}
    for device in SERIES:
        client = clients[device] = paho.Client(device, protocol=paho.MQTTv5)
        client.username_pw_set(f"{device}@{gateway.TENANT}", keys[device])
        client.connect("localhost", int(gateway.MQTT_PORT))
        client.loop_start()
    for second, device, celsius in sorted((s, d, c) for d, samples in SERIES.items() for s, c in samples):
        for payload in (json.dumps({"celsius": celsius}), "no JSON", '{"humidity": 99}', "[99]"):
            message = clients[device].publish("room", payload, qos=1, properties=cloud_event(
                f"{second}-{payload[:3]}", start + timedelta(seconds=second)))
            message.wait_for_publish(30)
            assert message.is_published()
    for client in clients.values():
        client.disconnect()
        client.loop_stop()


def alerts(gateway, processor):
    """What a consumer sees of the alerts: [(ce_type, ce_id, payload)]."""
    found = []
    for line in gateway.consume(format="%k|%h|%s\\n").splitlines():
        key, headers, payload = line.split("|", 2)
        if key == processor and "ce_subject=alert" in headers:
            header = dict(part.split("=", 1) for part in headers.split(",") if "=" in part)
            found.append((header["ce_type"], header["ce_id"], json.loads(payload)))
    return found
