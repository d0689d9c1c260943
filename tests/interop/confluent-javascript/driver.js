'use strict';

const { KafkaJS } = require('@confluentinc/kafka-javascript');
const { main } = require('../javascript/commands.js');

const states = Object.entries(KafkaJS.ConsumerGroupStates);

main({
  connect({ brokers, authorityFile, sasl }) {
    const kafkaJS = { clientId: 'interop', brokers, ssl: Boolean(authorityFile), sasl, logLevel: KafkaJS.logLevel.ERROR };
    return new KafkaJS.Kafka({ kafkaJS, ...(authorityFile && { 'ssl.ca.location': authorityFile }) });
  },

  consumer(kafka, { group, instance, fromBeginning, autoCommit, session = 10000 }) {
    let show = () => {};
    const consumer = kafka.consumer({
      kafkaJS: {
        groupId: group, sessionTimeout: session, rebalanceTimeout: 10000, heartbeatInterval: 300, fromBeginning,
        autoCommit, autoCommitInterval: 500,
      },
      ...(instance && { 'group.instance.id': instance }),
      // What it returns would be taken for an assignment. librdkafka knows of the change after this turn.
      rebalance_cb: (error, change) => {
        const gained = error.code === KafkaJS.ErrorCodes.ERR__ASSIGN_PARTITIONS;
        setImmediate(() => show(gained ? change.map((part) => part.partition) : []));
      },
    });
    consumer.watch = (callback) => { show = callback; };
    return consumer;
  },

  seeksEarly: true,
  watch: (consumer, show) => consumer.watch(show),
  producer: (kafka) => kafka.producer(),
  state: (state) => states.find(([, number]) => number === state)[0],
  owned: (member) => member.assignment.topicPartitions.map((part) => part.partition),

  // Its administrator cannot; a consumer that assigns itself the partitions can commit for an empty group.
  async reset(kafka, groupId, topic, offsets) {
    const consumer = kafka.consumer({ kafkaJS: { groupId, autoCommit: false } });
    await consumer.connect();
    await consumer.commitOffsets(offsets.map((entry) => ({ topic, ...entry })));
    await consumer.disconnect();
  },
});
