package duragate.examples;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.eclipse.paho.mqttv5.client.IMqttToken;
import org.eclipse.paho.mqttv5.client.MqttAsyncClient;
import org.eclipse.paho.mqttv5.client.MqttConnectionOptions;
import org.eclipse.paho.mqttv5.client.persist.MemoryPersistence;
import org.eclipse.paho.mqttv5.common.MqttException;
import org.eclipse.paho.mqttv5.common.MqttMessage;
import org.eclipse.paho.mqttv5.common.packet.MqttProperties;
import org.eclipse.paho.mqttv5.common.packet.UserProperty;

/**
 * Publishes alerts as a device, QoS 1, each of them as a CloudEvent with the alert's id. An alert is done when it
 * is acknowledged; anything else fails the job, which goes back to its last checkpoint and sends it again.
 */
final class AlertSink implements Sink<Alert> {
    private final String server;
    private final String userName;
    private final String key;

    AlertSink(String server, String userName, String key) {
        this.server = server;
        this.userName = userName;
        this.key = key;
    }

    @Override
    public SinkWriter<Alert> createWriter(WriterInitContext context) throws IOException {
        return new Writer(server, userName, key);
    }

    private static final class Writer implements SinkWriter<Alert> {
        private static final long TIMEOUT_MS = 30_000;
        private static final int REFUSED = 0x80; // reason codes from here on
        private static final ObjectMapper JSON =
            new ObjectMapper().setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE);
        private final MqttAsyncClient client;

        Writer(String server, String userName, String key) throws IOException {
            MqttConnectionOptions options = new MqttConnectionOptions();
            options.setUserName(userName);
            options.setPassword(key.getBytes(StandardCharsets.UTF_8));
            try {
                client = new MqttAsyncClient(server, userName, new MemoryPersistence());
                client.connect(options).waitForCompletion(TIMEOUT_MS);
            } catch (MqttException error) {
                throw new IOException("the processor cannot log in: " + error, error);
            }
        }

        /** Waits for the acknowledgement; alerts are rare. */
        @Override
        public void write(Alert alert, Context context) throws IOException {
            MqttMessage message = new MqttMessage(JSON.writeValueAsBytes(alert), 1, false, properties(alert));
            try {
                IMqttToken token = client.publish("$dg/events/alert", message);
                token.waitForCompletion(TIMEOUT_MS);
                if (token.getReasonCodes() != null && token.getReasonCodes()[0] >= REFUSED) {
                    throw new IOException("refused: reason code " + token.getReasonCodes()[0]);
                }
            } catch (MqttException error) {
                throw new IOException("no acknowledgement: " + error, error);
            }
            System.out.println("alert " + JSON.writeValueAsString(alert));
        }

        private static MqttProperties properties(Alert alert) {
            MqttProperties properties = new MqttProperties();
            properties.setContentType("application/json");
            properties.setUserProperties(List.of(
                new UserProperty("specversion", "1.0"), new UserProperty("id", alert.id),
                new UserProperty("source", "flink-moving-average"), new UserProperty("type", "duragate.event.v1"),
                new UserProperty("device", alert.device)));
            return properties;
        }

        @Override
        public void flush(boolean endOfInput) {
            // Nothing waits: write() has.
        }

        @Override
        public void close() throws MqttException {
            client.disconnectForcibly(1000);
            client.close();
        }
    }
}
