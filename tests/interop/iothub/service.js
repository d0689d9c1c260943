// azure-iothub over HTTPS, unmodified, as hub.py drives it: a command a line on standard input, words and then JSON;
// facts on standard output, likewise. It judges nothing.
//
//   registry METHOD [arguments]      result {status, body}: of a method of Registry
//   twin DEVICE {patch}              result {body}: what getTwin gave, after its update
//   query SIZE {query}               result {body: [pages]}
//   method DEVICE {parameters}       result {body}: invokeDeviceMethod
//
//   failed {name, message}           of the last command
//
// DG_CONNECTION_STRING is the policy's. The trust anchor is NODE_EXTRA_CA_CERTS.
"use strict";
const fs = require("fs");
const readline = require("readline");
const { Registry, Client } = require("azure-iothub");

const text = process.env.DG_CONNECTION_STRING;
const registry = Registry.fromConnectionString(text), client = Client.fromConnectionString(text);

function say(word, value) {
  fs.writeSync(1, word + " " + JSON.stringify(value) + "\n");
}

// Twins refer to their registry: only what came over the wire is said.
function plain(body) {
  if (body && body._registry) {
    const { _registry, ...members } = body;
    return members;
  }
  return body === undefined ? null : body;
}

async function query(size, wanted) {
  const found = registry.createQuery(wanted.query, Number(size)), pages = [];
  while (found.hasMoreResults) {
    const { result } = await found.nextAsTwin(found.continuationToken);
    pages.push(result.map((twin) => twin.deviceId));
  }
  return pages;
}

async function run(words, value) {
  const [command, name] = words;
  if (command === "registry") {
    const { responseBody, httpResponse } = await registry[name](...value);
    return { status: httpResponse.statusCode, body: plain(responseBody) };
  }
  if (command === "twin") {
    const { responseBody: twin } = await registry.getTwin(name);
    await twin.update(value);
    return { body: plain(twin) };
  }
  if (command === "query") return { body: await query(name, value) };
  return { body: (await client.invokeDeviceMethod(name, value)).result };
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const start = line.search(/[[{]/);
    try {
      say("result", await run(line.slice(0, start).trim().split(" "), JSON.parse(line.slice(start))));
    } catch (error) {
      say("failed", { name: error.name, message: error.message });
    }
  }
}

main();
