// mqtt.js as mqtt_clients.py drives it: the commands and the lines are described there.
"use strict";
const fs = require("fs");
const readline = require("readline");
const mqtt = require("mqtt");

const EXPIRY_S = 300;
const env = (name) => process.env["DG_" + name];
const isMqtt5 = env("VERSION") === "5", mayReconnect = env("RECONNECT") === "1", isClean = env("CLEAN") === "1";
const urls = {
  tcp: `mqtt://${env("HOST")}:${env("PORT")}`,
  tls: `mqtts://${env("HOST")}:${env("PORT")}`,
  wss: `wss://${env("HOST")}:${env("PORT")}/mqtt`,
};
let client, reason = "-";

function say(...words) {
  fs.writeSync(1, words.join(" ") + "\n");
}

function connect() {
  const options = {
    protocolVersion: isMqtt5 ? 5 : 4, clientId: env("CLIENT_ID"), username: env("USER"), password: env("PASSWORD"),
    clean: isClean, reconnectPeriod: mayReconnect ? 200 : 0,
  };
  if (env("TRANSPORT") !== "tcp") {
    options.ca = fs.readFileSync(env("CA_FILE"));
    options.wsOptions = { ca: options.ca };
  }
  if (isMqtt5 && !isClean) options.properties = { sessionExpiryInterval: EXPIRY_S };
  if (env("WILL")) options.will = { topic: env("WILL"), payload: "gone", qos: 1 };
  client = mqtt.connect(urls[env("TRANSPORT")], options);
  client.on("connect", (packet) => say("connected", packet.sessionPresent ? 1 : 0));
  client.on("disconnect", (packet) => { reason = packet.reasonCode; });
  client.on("error", (error) => {
    if (!error.code || typeof error.code !== "number") return;
    say("refused", error.code);
    process.exit(0);
  });
  client.on("close", () => {
    say("lost", reason);
    if (!mayReconnect) process.exit(0);
  });
}

function publish(messages) {
  let left = messages.length;
  for (const [topic, payload, qos, properties] of messages)
    client.publish(topic, payload, { qos, ...(properties && { properties }) }, (error) => {
      if (error) say("error", error.message);
      if (--left === 0) say("published", messages.length);
    });
}

const commands = {
  connect,
  publish(topic, qos, count, size) {
    publish([...Array(+count).keys()].map((i) => [topic, String(i).padEnd(+size, "x"), +qos]));
  },
  describe(topic) {
    publish([[topic, "x", 1, { contentType: "text/plain", userProperties: { colour: "blue" } }]]);
  },
  alias(topic, count) {
    publish([...Array(+count).keys()].map((i) => [i === 0 ? topic : "", "x", 1, { topicAlias: 1 }]));
  },
  subscribe(filter) {
    client.subscribe(filter, { qos: 1 }, (error, granted, packet) => {
      say("granted", packet ? packet.granted[0] : error.code ?? granted[0].qos);
    });
  },
  disconnect() {
    client.end();
  },
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const [command, ...words] = line.split(" ");
  commands[command](...words);
});
