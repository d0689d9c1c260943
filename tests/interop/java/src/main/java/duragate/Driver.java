package duragate;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Apache Kafka's own client as a driver: commands and output are described in ../clients.py. */
public final class Driver {
    private static final String TOPIC = System.getenv("DG_TOPIC");
    private static final Duration POLL = Duration.ofMillis(200);

    private interface Command {
        void run(List<String> arguments) throws Exception;
    }

    private Driver() {}

    private static void print(Object... words) {
        System.out.println(Arrays.stream(words).map(String::valueOf).collect(Collectors.joining(" ")));
    }

    private static Properties settings() {
        String authority = System.getenv("DG_CA_FILE");
        String mechanism = System.getenv("DG_MECHANISM");
        String module = mechanism.startsWith("SCRAM") ? "scram.ScramLoginModule" : "plain.PlainLoginModule";
        Properties settings = new Properties();
        settings.put("bootstrap.servers", System.getenv("DG_BOOTSTRAP"));
        settings.put("security.protocol", authority.isEmpty() ? "SASL_PLAINTEXT" : "SASL_SSL");
        settings.put("sasl.mechanism", mechanism);
        settings.put("sasl.jaas.config", "org.apache.kafka.common.security." + module + " required username=\""
            + System.getenv("DG_USER") + "\" password=\"" + System.getenv("DG_PASSWORD") + "\";");
        if (!authority.isEmpty()) {
            settings.put("ssl.truststore.type", "PEM");
            settings.put("ssl.truststore.location", authority);
        }
        settings.put("key.deserializer", StringDeserializer.class);
        settings.put("value.deserializer", ByteArrayDeserializer.class);
        settings.put("key.serializer", StringSerializer.class);
        settings.put("value.serializer", ByteArraySerializer.class);
        settings.put("auto.offset.reset", "earliest");
        settings.put("default.api.timeout.ms", "20000");
        settings.put("request.timeout.ms", "15000");
        settings.put("reconnect.backoff.max.ms", "1000");
        return settings;
    }

    private static String header(ConsumerRecord<?, ?> record, String name) {
        return new String(record.headers().lastHeader(name).value(), StandardCharsets.UTF_8);
    }

    private static void printRecord(ConsumerRecord<String, byte[]> record) {
        print("record", record.partition(), record.offset(), record.timestamp(), record.key(), header(record, "ce_id"),
            header(record, "ce_type"), record.value().length == 0 ? "-" : HexFormat.of().formatHex(record.value()));
    }

    private static KafkaConsumer<String, byte[]> consumer() {
        Properties settings = settings();
        settings.put("enable.auto.commit", "false");
        return new KafkaConsumer<>(settings);
    }

    private static List<TopicPartition> partitions(KafkaConsumer<?, ?> consumer) {
        return consumer.partitionsFor(TOPIC).stream().map(info -> new TopicPartition(TOPIC, info.partition())).toList();
    }

    private static void topics(List<String> arguments) throws Exception {
        try (Admin admin = Admin.create(settings())) {
            admin.describeTopics(admin.listTopics().names().get()).allTopicNames().get()
                .forEach((name, description) -> print("topic", name, description.partitions().size()));
        }
    }

    private static void read(List<String> arguments) {
        try (KafkaConsumer<String, byte[]> consumer = consumer()) {
            List<TopicPartition> partitions = partitions(consumer);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                consumer.poll(POLL).forEach(Driver::printRecord);
            }
        }
    }

    private static void seek(List<String> arguments) {
        TopicPartition partition = new TopicPartition(TOPIC, Integer.parseInt(arguments.get(0)));
        int left = Integer.parseInt(arguments.get(2));
        try (KafkaConsumer<String, byte[]> consumer = consumer()) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, Long.parseLong(arguments.get(1)));
            while (left > 0) {
                for (ConsumerRecord<String, byte[]> record : consumer.poll(POLL)) {
                    if (left-- > 0) {
                        printRecord(record);
                    }
                }
            }
        }
    }

    private static void times(List<String> arguments) {
        Long timestamp = Long.valueOf(arguments.get(0));
        try (KafkaConsumer<String, byte[]> consumer = consumer()) {
            Map<TopicPartition, Long> asked = partitions(consumer).stream()
                .collect(Collectors.toMap(partition -> partition, partition -> timestamp));
            consumer.offsetsForTimes(asked).forEach((partition, found) ->
                print("time", partition.partition(), found == null ? -1 : found.offset()));
        }
    }

    /** What the member owns, printed at each change. */
    private static final class Owned implements ConsumerRebalanceListener {
        private final TreeSet<Integer> owned = new TreeSet<>();

        private void show() {
            print("assigned", owned.stream().map(String::valueOf).collect(Collectors.joining(",")));
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> added) {
            added.forEach(partition -> owned.add(partition.partition()));
            show();
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> removed) {
            removed.forEach(partition -> owned.remove(partition.partition()));
            show();
        }
    }

    private static void member(List<String> arguments) throws IOException {
        Properties settings = settings();
        settings.put("group.id", arguments.get(0));
        if (arguments.size() > 1) {
            settings.put("group.instance.id", arguments.get(1));
        }
        settings.put("session.timeout.ms", System.getenv("DG_SESSION_MS"));
        settings.put("heartbeat.interval.ms", "300");
        settings.put("auto.commit.interval.ms", "500");
        if (!System.getenv("DG_STRATEGY").isEmpty()) {
            settings.put("partition.assignment.strategy", System.getenv("DG_STRATEGY"));
        }
        try (KafkaConsumer<String, byte[]> consumer = new KafkaConsumer<>(settings)) {
            consumer.subscribe(List.of(TOPIC), new Owned());
            InputEnd input = new InputEnd();
            while (!input.reached) {
                consumer.poll(POLL).forEach(Driver::printRecord);
            }
        }
    }

    private static final class InputEnd extends Thread {
        private volatile boolean reached;

        InputEnd() {
            setDaemon(true);
            start();
        }

        @Override
        public void run() {
            try {
                System.in.readAllBytes();
            } catch (IOException ignored) {
                // an end as well
            }
            reached = true;
        }
    }

    /** An idempotent producer, which is the default, and a plain one. */
    private static void produce(List<String> arguments) {
        for (String idempotence : List.of("true", "false")) {
            Properties settings = settings();
            settings.put("enable.idempotence", idempotence);
            try (KafkaProducer<String, byte[]> producer = new KafkaProducer<>(settings)) {
                producer.send(new ProducerRecord<>(TOPIC, 0, null, new byte[] {'x'})).get();
                print("produced");
            } catch (Exception error) {
                Throwable cause = error.getCause() == null ? error : error.getCause();
                print("refused", Errors.forException(cause).code(), cause);
            }
        }
    }

    private static void groups(List<String> arguments) throws Exception {
        try (Admin admin = Admin.create(settings())) {
            for (GroupListing group : admin.listGroups(ListGroupsOptions.forConsumerGroups()).all().get()) {
                print("group", group.groupId(), group.groupState().orElseThrow());
            }
        }
    }

    private static void describe(List<String> arguments) throws Exception {
        try (Admin admin = Admin.create(settings())) {
            ConsumerGroupDescription group = admin.describeConsumerGroups(arguments).all().get().get(arguments.get(0));
            print("group", group.groupId(), group.groupState());
            for (MemberDescription member : group.members()) {
                print("member", member.consumerId(), member.groupInstanceId().orElse("-"),
                    member.assignment().topicPartitions().stream().map(TopicPartition::partition).sorted()
                        .map(String::valueOf).collect(Collectors.joining(",")));
            }
        }
    }

    private static void reset(List<String> arguments) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        try (Admin admin = Admin.create(settings()); KafkaConsumer<String, byte[]> consumer = consumer()) {
            for (TopicPartition partition : partitions(consumer)) {
                offsets.put(partition, new OffsetAndMetadata(Long.parseLong(arguments.get(1))));
            }
            admin.alterConsumerGroupOffsets(arguments.get(0), offsets).all().get();
        }
    }

    private static void delete(List<String> arguments) throws Exception {
        try (Admin admin = Admin.create(settings())) {
            admin.deleteConsumerGroups(arguments).all().get();
        }
    }

    private static final Map<String, Command> COMMANDS = Map.of("topics", Driver::topics, "read", Driver::read,
        "seek", Driver::seek, "times", Driver::times, "member", Driver::member, "produce", Driver::produce,
        "groups", Driver::groups, "describe", Driver::describe, "reset", Driver::reset, "delete", Driver::delete);

    public static void main(String[] arguments) throws Exception {
        try {
            COMMANDS.get(arguments[0]).run(Arrays.asList(arguments).subList(1, arguments.length));
        } catch (ApiException | ExecutionException error) {
            print("error", error.toString().replaceAll("\\s+", " "));
            System.exit(1);
        }
    }
}
