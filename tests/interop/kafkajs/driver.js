'use strict';

const fs = require('fs');
const { AssignerProtocol, Kafka, logLevel } = require('kafkajs');
const { main } = require('../javascript/commands.js');

main({
  connect: ({ brokers, authorityFile, sasl }) => new Kafka({
    clientId: 'interop',
    brokers,
    ssl: authorityFile ? { ca: [fs.readFileSync(authorityFile, 'utf8')] } : false,
    sasl,
    logLevel: logLevel.ERROR,
    retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 50 },
  }),

  consumer(kafka, { group, fromBeginning, autoCommit, session = 10000 }) {
    const consumer = kafka.consumer({
      groupId: group, sessionTimeout: session, rebalanceTimeout: 10000, heartbeatInterval: 300, maxWaitTimeInMs: 500,
    });
    const { subscribe, run } = consumer;
    consumer.subscribe = (options) => subscribe({ ...options, fromBeginning });
    consumer.run = (options) => run({ ...options, autoCommit });
    return consumer;
  },

  watch(consumer, show) {
    consumer.on(consumer.events.REBALANCING, () => show([]));
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => show(Object.values(payload.memberAssignment).flat()));
  },

  producer: (kafka) => kafka.producer({ retry: { retries: 3 } }),
  state: (state) => state,
  owned: (member) => Object.values(AssignerProtocol.MemberAssignment.decode(member.memberAssignment).assignment).flat(),

  async reset(kafka, groupId, topic, offsets) {
    const admin = kafka.admin();
    await admin.connect();
    await admin.setOffsets({ groupId, topic, partitions: offsets });
    await admin.disconnect();
  },
});
