package duragate.examples;

/** A temperature, as Flink carries it: a type with public fields and a constructor without arguments. */
public class Event {
    public String device;
    public String time; // ce_time
    public double celsius;

    public Event() {}

    Event(String device, String time, double celsius) {
        this.device = device;
        this.time = time;
        this.celsius = celsius;
    }
}
