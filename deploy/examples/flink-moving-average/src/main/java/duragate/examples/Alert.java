package duragate.examples;

/** An average that rose above the threshold. The id follows from the stream alone: a replay gives the same. */
public class Alert {
    public String id;
    public String device;
    public double average;
    public double threshold;
    public long windowSeconds;
    public String windowEnd;
}
