package duragate.examples;

import java.util.Arrays;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.ExternalizedCheckpointRetention;
import org.apache.flink.configuration.StateRecoveryOptions;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/**
 * Reads the event stream, keeps a moving average of each device's temperature, and publishes an alert when one
 * rises above the threshold. Without a checkpoint to recover from it reads from the beginning.
 *
 * <pre>--once: stop at the end of the stream   --recover CHECKPOINT: go on from there</pre>
 */
public final class MovingAverageJob {
    private static final double THRESHOLD = 30;
    private static final long WINDOW_SECONDS = 60;
    private static final long CHECKPOINT_MS = 5000;

    private MovingAverageJob() {}

    private static String env(String name) {
        String value = System.getenv("DURAGATE_" + name);
        if (value == null) {
            throw new IllegalArgumentException("DURAGATE_" + name + " is not set");
        }
        return value;
    }

    private static Configuration configuration(String[] arguments) {
        Configuration configuration = new Configuration();
        String directory = System.getProperty("checkpoints", "checkpoints");
        configuration.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, new java.io.File(directory).toURI().toString());
        configuration.set(CheckpointingOptions.EXTERNALIZED_CHECKPOINT_RETENTION,
            ExternalizedCheckpointRetention.RETAIN_ON_CANCELLATION);
        int recover = Arrays.asList(arguments).indexOf("--recover");
        if (recover >= 0) {
            configuration.set(StateRecoveryOptions.SAVEPOINT_PATH, arguments[recover + 1]);
        }
        return configuration;
    }

    private static KafkaSource<Event> source(boolean once) {
        Properties properties = new Properties();
        properties.put("security.protocol", "SASL_PLAINTEXT");
        properties.put("sasl.mechanism", "PLAIN");
        properties.put("sasl.jaas.config", "org.apache.kafka.common.security.plain.PlainLoginModule required username=\""
            + env("KAFKA_USER") + "\" password=\"" + env("KAFKA_PASSWORD") + "\";");
        KafkaSourceBuilder<Event> builder = KafkaSource.<Event>builder()
            .setBootstrapServers(env("HOST") + ":" + env("KAFKA_PORT"))
            .setProperties(properties)
            .setTopics(env("TOPIC"))
            .setGroupId("flink-moving-average")
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setDeserializer(new EventReader(env("PROCESSOR")));
        return (once ? builder.setBounded(OffsetsInitializer.latest()) : builder).build();
    }

    public static void main(String[] arguments) throws Exception {
        boolean once = Arrays.asList(arguments).contains("--once");
        StreamExecutionEnvironment flink = StreamExecutionEnvironment.getExecutionEnvironment(configuration(arguments));
        flink.enableCheckpointing(CHECKPOINT_MS);
        AlertSink sink = new AlertSink("tcp://" + env("HOST") + ":" + env("MQTT_PORT"),
            env("PROCESSOR") + "@" + env("TENANT"), env("PROCESSOR_KEY"));
        flink.fromSource(source(once), WatermarkStrategy.noWatermarks(), "events").uid("events")
            .keyBy(event -> event.device)
            .process(new MovingAverage(THRESHOLD, WINDOW_SECONDS)).uid("average")
            .sinkTo(sink).setParallelism(1).uid("alerts"); // one connection: a device has one
        flink.execute("moving average");
    }
}
