import java.time.Duration;
import java.util.HashSet;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.ProcessorSupplier;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Kafka Streams, one thread, a commit each second. `tiles`, `tiles-eos` and `tiles-later`: a processor written by hand over an
 * in-memory store with a changelog; the last is exactly once too, and writes a card's features at most every 100 ms.
 * `tumbling` and `hopping`: its own windows, in memory with changelogs too.
 */
public final class KafkaStreamsPeer {
    private static final Duration FLUSH = Duration.ofMillis(10);
    private static final Duration LATER = Duration.ofMillis(100);
    private static final int COMMIT_MS = 1000;
    private static final long CACHE_BYTES = 256L << 20;

    private static Results results; // of the one stream thread

    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put("application.id", Workload.GROUP);
        settings.put("bootstrap.servers", Workload.KAFKA);
        settings.put("state.dir", Workload.STATE);
        settings.put("auto.offset.reset", "earliest");
        settings.put("num.stream.threads", 1);
        settings.put("statestore.cache.max.bytes", CACHE_BYTES);
        settings.put("consumer.max.poll.records", 5000);
        settings.put("commit.interval.ms", COMMIT_MS);
        if (Workload.is("tiles-eos", "tiles-later")) settings.put("processing.guarantee", "exactly_once_v2");
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, Payment> payments = builder.stream(
            Workload.TOPIC,
            Consumed.with(Serdes.String(), payments()).withTimestampExtractor((record, partition) -> ((Payment) record.value()).paidAt / 1000));
        if (Workload.is("tiles", "tiles-eos", "tiles-later")) payments.process(new TileSupplier());
        else windows(payments);
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        streams.start();
    }

    private static Serde<Payment> payments() {
        return Serdes.serdeFrom((topic, payment) -> null, (topic, datum) -> Payment.decode(datum, new Payment()));
    }

    private static void flushing(ProcessorContext<Void, Void> context) {
        if (results == null) results = new Results();
        context.schedule(FLUSH, PunctuationType.WALL_CLOCK_TIME, now -> results.flush());
    }

    // --- tiles by hand ---

    private static final class TileSupplier implements ProcessorSupplier<String, Payment, Void, Void> {
        @Override
        public Processor<String, Payment, Void, Void> get() {
            return new TileProcessor();
        }

        @Override
        public Set<StoreBuilder<?>> stores() {
            return Set.of(
                Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("tiles"), Serdes.String(), Serdes.ByteArray()).withCachingEnabled());
        }
    }

    private static final class TileProcessor implements Processor<String, Payment, Void, Void> {
        private KeyValueStore<String, byte[]> store;
        private final Tiles tiles = new Tiles();
        private final boolean later = Workload.is("tiles-later");
        private final Set<String> waiting = new HashSet<>();
        private long folded;

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            store = context.getStateStore("tiles");
            if (later) context.schedule(LATER, PunctuationType.WALL_CLOCK_TIME, now -> writeWaiting());
            flushing(context);
        }

        @Override
        public void process(Record<String, Payment> record) {
            Payment payment = record.value();
            tiles.read(store.get(record.key())).add(payment.paidAt, payment.amount);
            store.put(record.key(), tiles.write());
            if (later) {
                waiting.add(record.key());
                folded++;
            } else {
                results.counted(1);
                results.put(record.key(), tiles.features());
            }
        }

        private void writeWaiting() {
            for (String card : waiting) results.put(card, tiles.read(store.get(card)).features());
            waiting.clear();
            results.counted(folded);
            folded = 0;
        }
    }

    // --- stock windows ---

    private static void windows(KStream<String, Payment> payments) {
        KGroupedStream<String, Payment> grouped = payments.groupByKey();
        for (int w = 0; w < Workload.WINDOWS.length; w++) {
            int window = w;
            Duration length = Duration.ofMillis(Workload.WINDOWS[w] / 1000);
            TimeWindows windows = TimeWindows.ofSizeWithNoGrace(length);
            if (Workload.is("hopping")) windows = windows.advanceBy(Duration.ofMillis(Workload.TILES[w] / 1000));
            long advance = windows.advanceMs;
            Materialized<String, Aggregate, WindowStore<Bytes, byte[]>> store = Materialized
                .<String, Aggregate>as(Stores.inMemoryWindowStore("window" + w, length, length, false))
                .withKeySerde(Serdes.String())
                .withValueSerde(aggregates())
                .withCachingEnabled();
            grouped.windowedBy(windows)
                .aggregate(Aggregate::new, (card, payment, found) -> found.add(payment.amount), store)
                .toStream()
                .process(() -> new WindowProcessor(window, advance));
        }
        payments.process(Counter::new);
    }

    private static Serde<Aggregate> aggregates() {
        return Serdes.serdeFrom(
            (topic, found) -> found == null ? null : found.write(java.nio.ByteBuffer.allocate(Aggregate.BYTES)).array(),
            (topic, bytes) -> bytes == null ? null : Aggregate.read(bytes));
    }

    /** Writes the one window of each length that is about to end; the others that hold the event are not read by anybody. */
    private static final class WindowProcessor extends ContextualProcessor<Windowed<String>, Aggregate, Void, Void> {
        private final int window;
        private final long advanceMs;

        WindowProcessor(int window, long advanceMs) {
            this.window = window;
            this.advanceMs = advanceMs;
        }

        @Override
        public void process(Record<Windowed<String>, Aggregate> record) {
            if (record.key().window().end() - record.timestamp() <= advanceMs)
                results.put(record.key().key(), window, record.key().window().start() * 1000, record.value());
        }
    }

    /** The last child of the source, so an event is counted when all its windows have it. */
    private static final class Counter implements Processor<String, Payment, Void, Void> {
        @Override
        public void init(ProcessorContext<Void, Void> context) {
            flushing(context);
        }

        @Override
        public void process(Record<String, Payment> record) {
            results.counted(1);
        }
    }
}
