// azure-iot-device over MQTT, unmodified, as hub.py drives it: a command a line on standard input, words and then
// JSON; facts on standard output, likewise. It judges nothing.
//
//   open                   opened
//   send {payload, messageId, correlationId, contentType, contentEncoding, properties}      sent
//   listen                 then `message {...}` for each from the cloud, which is completed: `completed ID`
//   answer NAME STATUS     then `method NAME {payload}` for each call, which is answered with {"did": NAME}
//   twin                   twin {desired, reported}, then `desired {patch}` for each change
//   report {patch}         reported
//   close                  closed
//
//   lost TEXT              the client says that it is disconnected
//   error NAME TEXT        of the last command
//
// DG_CONNECTION_STRING, DG_TRANSPORT (mqtt or ws), DG_TOKEN_SECONDS (tokens live so long, and are renewed at half of
// it), DG_CERTIFICATE and DG_KEY (files, for X.509). The trust anchor is NODE_EXTRA_CA_CERTS.
"use strict";
const fs = require("fs");
const readline = require("readline");
const { Client, Message, SharedAccessKeyAuthenticationProvider } = require("azure-iot-device");
const { Mqtt, MqttWs } = require("azure-iot-device-mqtt");

const env = (name) => process.env["DG_" + name] || "";
const transport = env("TRANSPORT") === "ws" ? MqttWs : Mqtt;
let client, twin;

function say(...words) {
  fs.writeSync(1, words.map((word) => (typeof word === "string" ? word : JSON.stringify(word))).join(" ") + "\n");
}

function makeClient() {
  const text = env("CONNECTION_STRING"), seconds = Number(env("TOKEN_SECONDS"));
  if (seconds) {
    const provider = SharedAccessKeyAuthenticationProvider.fromConnectionString(text, seconds, seconds / 2);
    return Client.fromAuthenticationProvider(provider, transport);
  }
  return Client.fromConnectionString(text, transport);
}

async function open() {
  client = makeClient();
  if (env("CERTIFICATE")) {
    const read = (name) => fs.readFileSync(env(name), "utf8");
    await client.setOptions({ cert: read("CERTIFICATE"), key: read("KEY") });
  }
  client.on("disconnect", (error) => say("lost", String((error && error.message) || error)));
  client.on("error", (error) => say("lost", error.message));
  await client.open();
  say("opened");
}

async function send(wanted) {
  const message = new Message(wanted.payload);
  for (const name of ["messageId", "correlationId", "contentType", "contentEncoding"])
    if (wanted[name]) message[name] = wanted[name];
  for (const [name, value] of Object.entries(wanted.properties || {})) message.properties.add(name, value);
  await client.sendEvent(message);
  say("sent");
}

function listen() {
  client.on("message", async (message) => {
    const properties = Object.fromEntries(message.properties.propertyList.map(({ key, value }) => [key, value]));
    say("message", { id: message.messageId, to: message.to, payload: message.getData().toString(), properties,
                     correlationId: message.correlationId, contentType: message.contentType, ack: message.ack,
                     expiry: message.expiryTimeUtc });
    await client.complete(message);
    say("completed", message.messageId || "-");
  });
  say("listening");
}

function answer(name, status) {
  client.onDeviceMethod(name, (request, response) => {
    say("method", request.methodName, request.payload);
    response.send(Number(status), { did: name });
  });
  say("answering");
}

async function getTwin() {
  twin = await client.getTwin();
  say("twin", { desired: twin.properties.desired, reported: { ...twin.properties.reported, update: undefined } });
  twin.on("properties.desired", (patch) => say("desired", patch));
}

async function report(patch) {
  await new Promise((resolve, reject) =>
    twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve())));
  say("reported");
}

const commands = {
  open, listen,
  send: (rest) => send(JSON.parse(rest)),
  answer: (rest) => answer(...rest.split(" ")),
  twin: getTwin,
  report: (rest) => report(JSON.parse(rest)),
  close: async () => { await client.close(); say("closed"); },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [command, ...rest] = line.split(" ");
    try {
      await commands[command](rest.join(" "));
    } catch (error) {
      say("error", error.name, error.message);
    }
  }
  process.exit(0);
}

main();
