package duragate.examples;

import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * The average of a device's samples in the window that ends with the newest, in event time. No watermark is
 * needed: the gateway keeps a device's events in order, so the averages follow from the stream alone.
 */
final class MovingAverage extends KeyedProcessFunction<String, Event, Alert> {
    private final double threshold;
    private final long windowSeconds;
    private transient ListState<Tuple2<Long, Double>> samples;
    private transient ValueState<Boolean> above;

    MovingAverage(double threshold, long windowSeconds) {
        this.threshold = threshold;
        this.windowSeconds = windowSeconds;
    }

    @Override
    public void open(OpenContext context) {
        samples = getRuntimeContext().getListState(
            new ListStateDescriptor<>("samples", Types.TUPLE(Types.LONG, Types.DOUBLE)));
        above = getRuntimeContext().getState(new ValueStateDescriptor<>("above", Types.BOOLEAN));
    }

    @Override
    public void processElement(Event event, Context context, Collector<Alert> alerts) throws Exception {
        List<Tuple2<Long, Double>> window = new ArrayList<>();
        samples.get().forEach(window::add);
        window.add(Tuple2.of(Instant.parse(event.time).toEpochMilli(), event.celsius));
        long end = window.stream().mapToLong(sample -> sample.f0).max().orElseThrow();
        window.removeIf(sample -> sample.f0 <= end - windowSeconds * 1000);
        samples.update(window);

        double average = window.stream().mapToDouble(sample -> sample.f1).average().orElseThrow();
        boolean wasAbove = Boolean.TRUE.equals(above.value());
        above.update(average > threshold);
        if (average > threshold && !wasAbove) {
            alerts.collect(alert(event, average));
        }
    }

    private Alert alert(Event event, double average) {
        Alert alert = new Alert();
        alert.id = event.device + "/" + event.time;
        alert.device = event.device;
        alert.average = Math.round(average * 1000) / 1000.0;
        alert.threshold = threshold;
        alert.windowSeconds = windowSeconds;
        alert.windowEnd = event.time;
        return alert;
    }
}
