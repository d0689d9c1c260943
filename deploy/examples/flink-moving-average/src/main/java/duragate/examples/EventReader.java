package duragate.examples;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** Record of the stream to temperature. What is none, and what this job has published itself, is passed over. */
final class EventReader implements KafkaRecordDeserializationSchema<Event> {
    private static final ObjectMapper JSON = new ObjectMapper();
    private final String processor;

    EventReader(String processor) {
        this.processor = processor;
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Event> events) throws IOException {
        String device = new String(record.key(), StandardCharsets.UTF_8);
        if (device.equals(processor)) {
            return;
        }
        try {
            JsonNode celsius = JSON.readTree(record.value()).path("celsius");
            if (celsius.isNumber()) {
                byte[] time = record.headers().lastHeader("ce_time").value();
                events.collect(new Event(device, new String(time, StandardCharsets.UTF_8), celsius.asDouble()));
            }
        } catch (JacksonException notJson) {
            // Devices may publish what they like.
        }
    }

    @Override
    public TypeInformation<Event> getProducedType() {
        return TypeInformation.of(Event.class);
    }
}
