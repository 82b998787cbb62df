import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.Pipeline;

/**
 * Results on their way to Redis, in pipelines. Each pipeline says how many events it accounts for (INCRBY events), which is how the
 * benchmark follows every contender alike: an event counts when its effect is in Redis. One thread.
 */
final class Results {
    private static final int AT_MOST = 1000;
    private static final byte[] EVENTS = "events".getBytes(StandardCharsets.US_ASCII);
    private final Jedis jedis;
    private final Pipeline pipeline;
    private int commands;
    private long events;

    Results() {
        String[] address = Workload.need("PEER_REDIS").split(":");
        jedis = new Jedis(address[0], Integer.parseInt(address[1]));
        pipeline = (Pipeline) jedis.pipelined();
    }

    /** The features of a card as of its newest event. */
    void put(String card, byte[] features) {
        pipeline.set(card.getBytes(StandardCharsets.US_ASCII), features);
        if (++commands >= AT_MOST) flush();
    }

    /** One stock window of a card, the one that started at `start` (microseconds). */
    void put(String card, int window, long start, Aggregate found) {
        put(card + ":" + window, found.write(ByteBuffer.allocate(8 + Aggregate.BYTES).putLong(start)).array());
    }

    /** So many events more are folded. */
    void counted(long more) {
        events += more;
    }

    void flush() {
        if (commands == 0 && events == 0) return;
        pipeline.incrBy(EVENTS, events);
        pipeline.sync();
        commands = 0;
        events = 0;
    }
}
