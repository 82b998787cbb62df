import java.util.Arrays;

/** What to do and where, from the environment: the same variables for every contender, set by `rig.py`. */
final class Workload {
    static final String KAFKA = need("PEER_KAFKA");
    static final String TOPIC = need("PEER_TOPIC");
    static final String GROUP = need("PEER_GROUP");
    static final String STATE = need("PEER_STATE");
    static final String WHAT = need("PEER_WHAT");
    /** Window lengths in microseconds, and the tile (or slide) of each. */
    static final long[] WINDOWS = micros(0);
    static final long[] TILES = micros(1);

    private Workload() {}

    static boolean is(String... names) {
        return Arrays.asList(names).contains(WHAT);
    }

    static String need(String name) {
        String value = System.getenv(name);
        if (value == null) throw new IllegalStateException("the variable " + name + " is not set");
        return value;
    }

    private static long[] micros(int part) {
        return Arrays.stream(need("PEER_WINDOWS").split(",")).mapToLong(w -> Long.parseLong(w.split("/")[part])).toArray();
    }
}
