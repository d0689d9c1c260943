// The commands of ../clients.py for clients with the interface of KafkaJS. What differs between them is in
// the adapter: connect(), consumer(kafka, options), watch(consumer, show), reset(kafka, group, topic, offsets),
// seeksEarly: whether a seek must come before the partitions are assigned.
'use strict';

const topic = process.env.DG_TOPIC;

const settings = {
  brokers: [process.env.DG_BOOTSTRAP],
  authorityFile: process.env.DG_CA_FILE,
  // node's names of the mechanisms are in lower case
  sasl: {
    mechanism: process.env.DG_MECHANISM.toLowerCase(),
    username: process.env.DG_USER,
    password: process.env.DG_PASSWORD,
  },
};

const print = (...words) => process.stdout.write(words.join(' ') + '\n');

function printRecord(partition, message) {
  const header = (name) => [message.headers[name]].flat().pop().toString();
  print('record', partition, message.offset, message.timestamp, message.key, header('ce_id'), header('ce_type'),
    message.value.toString('hex') || '-');
}

async function withAdmin(kafka, work) {
  const admin = kafka.admin();
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.disconnect();
  }
}

const partitions = async (kafka) => withAdmin(kafka, async (admin) => {
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] }).then((found) => found.topics ? found : { topics: found });
  return topics[0].partitions.length;
});

// Runs a consumer in a group of its own until done() says so; the group is deleted afterwards.
async function consume(adapter, kafka, { fromBeginning, started, take }) {
  const group = `reader-${process.pid}-${Date.now()}`;
  const consumer = adapter.consumer(kafka, { group, fromBeginning, autoCommit: false });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic] });
  await new Promise((resolve, reject) => {
    if (adapter.seeksEarly) started(consumer).catch(reject);
    else adapter.watch(consumer, (owned) => owned.length > 0 && started(consumer).catch(reject));
    consumer.run({ eachMessage: async ({ partition, message }) => take(partition, message) && resolve() }).catch(reject);
  });
  await consumer.disconnect();
}

const commands = {
  async topics(adapter, kafka) {
    await withAdmin(kafka, async (admin) => {
      for (const name of await admin.listTopics()) {
        print('topic', name, name === topic ? await partitions(kafka) : '-');
      }
    });
  },

  async read(adapter, kafka) {
    const ends = await withAdmin(kafka, (admin) => admin.fetchTopicOffsets(topic));
    const left = new Set(ends.filter((end) => Number(end.high) > Number(end.low)).map((end) => end.partition));
    const last = new Map(ends.map((end) => [end.partition, Number(end.high) - 1]));
    await consume(adapter, kafka, {
      fromBeginning: true,
      started: async () => {},
      take(partition, message) {
        if (Number(message.offset) <= last.get(partition)) printRecord(partition, message);
        if (Number(message.offset) >= last.get(partition)) left.delete(partition);
        return left.size === 0;
      },
    });
  },

  // It starts at the end: without the seek there would be nothing to print.
  async seek(adapter, kafka, partition, offset, count) {
    let wanted = Number(count);
    await consume(adapter, kafka, {
      fromBeginning: false,
      started: async (consumer) => consumer.seek({ topic, partition: Number(partition), offset }),
      take(from, message) {
        if (from === Number(partition) && wanted-- > 0) printRecord(from, message);
        return wanted <= 0;
      },
    });
  },

  async times(adapter, kafka, timestamp) {
    const found = await withAdmin(kafka, (admin) => admin.fetchTopicOffsetsByTimestamp(topic, Number(timestamp)));
    for (const { partition, offset } of found) print('time', partition, offset);
  },

  async member(adapter, kafka, group, instance) {
    const consumer = adapter.consumer(kafka, {
      group, instance, fromBeginning: true, autoCommit: true, session: Number(process.env.DG_SESSION_MS),
    });
    await consumer.connect();
    await consumer.subscribe({ topics: [topic] });
    adapter.watch(consumer, (owned) => print('assigned', owned.sort((a, b) => a - b).join(',')));
    await consumer.run({ eachMessage: async ({ partition, message }) => printRecord(partition, message) });
    await new Promise((resolve) => process.stdin.on('end', resolve).resume());
    await consumer.disconnect();
  },

  async produce(adapter, kafka) {
    const producer = adapter.producer(kafka);
    await producer.connect();
    try {
      await producer.send({ topic, messages: [{ partition: 0, value: 'x' }] });
      print('produced');
    } catch (error) {
      print('refused', error.code, error.message);
    }
    await producer.disconnect();
  },

  async groups(adapter, kafka) {
    await withAdmin(kafka, async (admin) => {
      const { groups } = await admin.listGroups();
      const described = groups.length ? (await admin.describeGroups(groups.map((group) => group.groupId))).groups : [];
      for (const group of described) print('group', group.groupId, adapter.state(group.state));
    });
  },

  async describe(adapter, kafka, name) {
    const { groups: [group] } = await withAdmin(kafka, (admin) => admin.describeGroups([name]));
    print('group', group.groupId, adapter.state(group.state));
    for (const member of group.members) {
      print('member', member.memberId, '-', adapter.owned(member).sort((a, b) => a - b).join(','));
    }
  },

  async reset(adapter, kafka, group, offset) {
    const count = await partitions(kafka);
    const offsets = Array.from({ length: count }, (_, partition) => ({ partition, offset }));
    await adapter.reset(kafka, group, topic, offsets);
  },

  async delete(adapter, kafka, group) {
    await withAdmin(kafka, (admin) => admin.deleteGroups([group]));
  },
};

async function main(adapter) {
  const [name, ...parameters] = process.argv.slice(2);
  try {
    await commands[name](adapter, adapter.connect(settings), ...parameters);
    process.stdout.write('', () => process.exit(0)); // what a client leaves behind does not keep us
  } catch (error) {
    const causes = [error.message, ...(error.groups || []).map((group) => group.error && group.error.message)];
    process.stdout.write('error ' + causes.join(' ').replace(/\s+/g, ' ') + '\n', () => process.exit(1));
  }
}

module.exports = { main };
