#!/usr/bin/python3
"""Reads the event stream, keeps a moving average of each device's temperature, and publishes an alert as the
device $DURAGATE_PROCESSOR when an average rises above the threshold.

Nothing is lost: the place in the stream and the averages are saved together, and only when all alerts before
that place are acknowledged, which means on disk. Nothing is invented: after a crash, or when everything is
read again from the beginning, the same alerts come with the same ids, so that readers can tell.

Debian: python3-confluent-kafka python3-paho-mqtt. Settings: var/demo.env, and the constants below.
"""

import argparse
import json
import os
import sys
import threading
from datetime import datetime

import paho.mqtt.client as mqtt
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

THRESHOLD, WINDOW_SECONDS = 30.0, 60
SETTINGS = ("HOST", "MQTT_PORT", "KAFKA_PORT", "KAFKA_USER", "KAFKA_PASSWORD", "TOPIC", "TENANT",
            "PROCESSOR", "PROCESSOR_KEY")
ENV = {name[9:]: value for name, value in os.environ.items() if name.startswith("DURAGATE_")}


def take_sample(device, time_text, celsius):
    """The alert that this sample raises, if any. device: what is known of it, changed in place."""
    time = datetime.fromisoformat(time_text.replace("Z", "+00:00")).timestamp()
    end = max(device.get("end", time), time)
    samples = [s for s in [*device.get("samples", []), [time, celsius]] if s[0] > end - WINDOW_SECONDS]
    average = sum(s[1] for s in samples) / len(samples)
    was_above = device.get("above", False)
    device.update(end=end, samples=samples, above=average > THRESHOLD)
    return {"average": round(average, 3), "threshold": THRESHOLD, "window_seconds": WINDOW_SECONDS,
            "window_end": time_text} if device["above"] and not was_above else None


def alert_of(record, devices):
    headers, name = dict(record.headers() or []), record.key().decode()
    if name == ENV["PROCESSOR"]:
        return None  # our own alerts
    try:
        celsius = float(json.loads(record.value())["celsius"])
    except (ValueError, KeyError, TypeError):
        return None  # not a temperature
    alert = take_sample(devices.setdefault(name, {}), headers["ce_time"].decode(), celsius)
    return alert and {"id": f"{name}/{alert['window_end']}", "device": name, **alert}


def count_partitions(consumer, failures):
    """The first talk with the gateway: what cannot succeed later ends the program, with the reason."""
    for _ in range(20):
        try:
            return len(consumer.list_topics(ENV["TOPIC"], timeout=0.5).topics[ENV["TOPIC"]].partitions)
        except KafkaException:
            waited_in_vain = bool(failures)
            consumer.poll(0)  # fills in the failures
        refused = [error.str() for error in failures if error.code() == KafkaError._AUTHENTICATION]
        if refused:
            sys.exit(f"the user {ENV['KAFKA_USER']} cannot log in: {refused[0]}")
        if waited_in_vain:
            break  # a second address of the host, if there is one, had its chance
    sys.exit(f"cannot reach {ENV['HOST']}:{ENV['KAFKA_PORT']}: is the gateway running?"
             f" ({failures[0].str() if failures else 'no answer'})")


def connect_processor():
    """MQTT 3.1.1: an acknowledgement is a yes (this library does not tell of MQTT 5's reasons for a no)."""
    client = mqtt.Client(ENV["PROCESSOR"])
    client.username_pw_set(f"{ENV['PROCESSOR']}@{ENV['TENANT']}", ENV["PROCESSOR_KEY"])
    connected = threading.Event()
    client.on_connect = lambda _client, _data, _flags, code: code == 0 and connected.set()
    try:
        client.connect(ENV["HOST"], int(ENV["MQTT_PORT"]))
    except OSError as error:
        sys.exit(f"cannot reach {ENV['HOST']}:{ENV['MQTT_PORT']}: is the gateway running? ({error})")
    client.loop_start()
    if not connected.wait(10):
        sys.exit(f"the device {ENV['PROCESSOR']} cannot log in")
    return client


def publish(client, alert):
    message = client.publish("$dg/events/alert", json.dumps(alert), qos=1)
    message.wait_for_publish(30)
    if not message.is_published():
        sys.exit("no acknowledgement")  # nothing after the last saved place counts as done
    print("alert", json.dumps(alert), flush=True)


def save(path, state):
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--state", default="moving_average.json", help="file that remembers; without it: all again")
    parser.add_argument("--once", action="store_true", help="stop at the end of the stream")
    options = parser.parse_args()
    missing = [name for name in SETTINGS if not ENV.get(name)]
    if missing:
        sys.exit("not set: " + ", ".join("DURAGATE_" + name for name in missing) + " (see README.md)")
    state = {"offsets": {}, "devices": {}}
    if os.path.exists(options.state):
        with open(options.state, encoding="utf-8") as file:
            state = json.load(file)
    failures = []
    consumer = Consumer({
        "bootstrap.servers": f"{ENV['HOST']}:{ENV['KAFKA_PORT']}", "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanisms": "PLAIN", "sasl.username": ENV["KAFKA_USER"], "sasl.password": ENV["KAFKA_PASSWORD"],
        "group.id": "moving-average", "enable.auto.commit": False, "enable.partition.eof": True,
        "error_cb": failures.append,
        "auto.offset.reset": "error"})  # what retention has removed must not be passed over in silence
    count = count_partitions(consumer, failures)
    consumer.assign([TopicPartition(ENV["TOPIC"], p, state["offsets"].get(str(p), OFFSET_BEGINNING))
                     for p in range(count)])
    processor, unfinished = connect_processor(), set(range(count))
    while unfinished or not options.once:
        records = consumer.consume(500, timeout=1.0)
        for record in records:
            if record.error() and record.error().name() == "_PARTITION_EOF":
                unfinished.discard(record.partition())
                continue
            if record.error():
                raise KafkaException(record.error())
            alert = alert_of(record, state["devices"])
            if alert:
                publish(processor, alert)
            state["offsets"][str(record.partition())] = record.offset() + 1
        if records:
            save(options.state, state)
    processor.disconnect()
    consumer.close()


if __name__ == "__main__":
    main()
