import java.io.IOException;
import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.operators.ProcessingTimeService;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.datastream.KeyedStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.SlidingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.assigners.WindowAssigner;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/**
 * Flink in one process, parallelism one, state on the heap. `tiles`, `tiles-checkpoints` and `tiles-later`: a process function
 * written by hand, without checkpoints, with one a second, and with one a second and a card's features written at most every
 * 100 ms. `tumbling` and `hopping`: its own windows.
 */
public final class FlinkPeer {
    private static final long FLUSH_MS = 10;
    private static final long LATER_MS = 100;
    private static final long CHECKPOINT_MS = 1000;
    private static final TypeInformation<Tuple3<String, Long, Double>> PAYMENT = Types.TUPLE(Types.STRING, Types.LONG, Types.DOUBLE);
    /** Key of the value in Redis, its bytes, events that it accounts for. */
    private static final TypeInformation<Tuple3<String, byte[], Long>> RESULT =
        Types.TUPLE(Types.STRING, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO, Types.LONG);

    public static void main(String[] arguments) throws Exception {
        Configuration settings = new Configuration();
        settings.set(StateBackendOptions.STATE_BACKEND, "hashmap");
        settings.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, "file://" + Workload.STATE);
        settings.set(PipelineOptions.OBJECT_REUSE, true);
        StreamExecutionEnvironment flink = StreamExecutionEnvironment.createLocalEnvironment(1, settings);
        if (Workload.is("tiles-checkpoints", "tiles-later")) flink.enableCheckpointing(CHECKPOINT_MS, CheckpointingMode.EXACTLY_ONCE);
        KafkaSource<Tuple3<String, Long, Double>> source = KafkaSource.<Tuple3<String, Long, Double>>builder()
            .setBootstrapServers(Workload.KAFKA)
            .setGroupId(Workload.GROUP)
            .setTopics(Workload.TOPIC)
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setDeserializer(new Decoder())
            // The watermark waits for the slowest partition; small fetches let all of them advance together.
            .setProperty("max.partition.fetch.bytes", Workload.is("tumbling", "hopping") ? "32768" : "1048576")
            .build();
        // Each partition is in order.
        WatermarkStrategy<Tuple3<String, Long, Double>> times = WatermarkStrategy
            .<Tuple3<String, Long, Double>>forMonotonousTimestamps()
            .withTimestampAssigner((payment, kafka) -> payment.f1 / 1000);
        KeyedStream<Tuple3<String, Long, Double>, String> cards = flink.fromSource(source, times, "payments").keyBy(payment -> payment.f0, Types.STRING);
        if (Workload.is("tiles", "tiles-checkpoints", "tiles-later")) cards.process(new TileFunction()).returns(RESULT).sinkTo(new RedisSink());
        else windows(cards);
        try {
            flink.execute();
        } catch (Throwable error) {
            error.printStackTrace();
        }
        Runtime.getRuntime().halt(1);
    }

    private static final class Decoder implements KafkaRecordDeserializationSchema<Tuple3<String, Long, Double>> {
        private transient Payment payment;
        private transient Tuple3<String, Long, Double> row;

        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Tuple3<String, Long, Double>> out) {
            if (payment == null) {
                payment = new Payment();
                row = new Tuple3<>();
            }
            Payment.decode(record.value(), payment);
            row.setFields(payment.card, payment.paidAt, payment.amount);
            out.collect(row);
        }

        @Override
        public TypeInformation<Tuple3<String, Long, Double>> getProducedType() {
            return PAYMENT;
        }
    }

    // --- tiles by hand ---

    private static final class TileFunction extends KeyedProcessFunction<String, Tuple3<String, Long, Double>, Tuple3<String, byte[], Long>> {
        private transient ValueState<Tiles> state;
        private final Tuple3<String, byte[], Long> result = new Tuple3<>();
        private final boolean later = Workload.is("tiles-later");

        @Override
        public void open(OpenContext context) {
            state = getRuntimeContext().getState(new ValueStateDescriptor<>("tiles", new TilesSerializer()));
        }

        @Override
        public void processElement(Tuple3<String, Long, Double> payment, Context context, Collector<Tuple3<String, byte[], Long>> out) throws IOException {
            Tiles tiles = state.value();
            if (tiles == null) tiles = new Tiles();
            tiles.add(payment.f1, payment.f2);
            if (!later) {
                result.setFields(payment.f0, tiles.features(), 1L);
                out.collect(result);
            } else if (tiles.waiting++ == 0) {
                long now = context.timerService().currentProcessingTime();
                context.timerService().registerProcessingTimeTimer((now / LATER_MS + 1) * LATER_MS);
            }
            state.update(tiles);
        }

        @Override
        public void onTimer(long time, OnTimerContext context, Collector<Tuple3<String, byte[], Long>> out) throws IOException {
            Tiles tiles = state.value();
            result.setFields(context.getCurrentKey(), tiles.features(), tiles.waiting);
            out.collect(result);
            tiles.waiting = 0;
            state.update(tiles);
        }
    }

    // --- stock windows ---

    private static void windows(KeyedStream<Tuple3<String, Long, Double>, String> cards) {
        int last = Workload.WINDOWS.length - 1;
        for (int w = 0; w <= last; w++) {
            Duration length = Duration.ofMillis(Workload.WINDOWS[w] / 1000), slide = Duration.ofMillis(Workload.TILES[w] / 1000);
            boolean hopping = Workload.is("hopping");
            WindowAssigner<Object, TimeWindow> assigner = hopping ? SlidingEventTimeWindows.of(length, slide) : TumblingEventTimeWindows.of(length);
            // The last window of the four counts events: an event is added to as many windows as overlap.
            long overlapping = w < last ? 0 : hopping ? length.dividedBy(slide) : 1;
            cards.window(assigner)
                .aggregate(new Fold(overlapping), new Emit(w), TypeInformation.of(Aggregate.class), TypeInformation.of(Aggregate.class), RESULT)
                .sinkTo(new RedisSink());
        }
    }

    private static final class Fold implements AggregateFunction<Tuple3<String, Long, Double>, Aggregate, Aggregate> {
        private final long overlapping;
        private long added;

        Fold(long overlapping) {
            this.overlapping = overlapping;
        }

        @Override
        public Aggregate createAccumulator() {
            return new Aggregate();
        }

        @Override
        public Aggregate add(Tuple3<String, Long, Double> payment, Aggregate found) {
            if (overlapping > 0 && ++added % overlapping == 0) Folded.COUNT.getAndIncrement();
            return found.add(payment.f2);
        }

        @Override
        public Aggregate getResult(Aggregate found) {
            return found;
        }

        @Override
        public Aggregate merge(Aggregate one, Aggregate other) {
            throw new UnsupportedOperationException("windows of a fixed length are not merged");
        }
    }

    /** Events that all windows have, and that the next pipeline tells Redis. */
    private static final class Folded {
        static final java.util.concurrent.atomic.AtomicLong COUNT = new java.util.concurrent.atomic.AtomicLong();
    }

    private static final class Emit extends ProcessWindowFunction<Aggregate, Tuple3<String, byte[], Long>, String, TimeWindow> {
        private final int window;

        Emit(int window) {
            this.window = window;
        }

        @Override
        public void process(String card, Context context, Iterable<Aggregate> found, Collector<Tuple3<String, byte[], Long>> out) {
            java.nio.ByteBuffer to = java.nio.ByteBuffer.allocate(8 + Aggregate.BYTES).putLong(context.window().getStart() * 1000);
            out.collect(Tuple3.of(card + ":" + window, found.iterator().next().write(to).array(), 0L));
        }
    }

    // --- Redis ---

    private static final class RedisSink implements Sink<Tuple3<String, byte[], Long>> {
        @Override
        public SinkWriter<Tuple3<String, byte[], Long>> createWriter(WriterInitContext context) {
            return new RedisWriter(context.getProcessingTimeService());
        }
    }

    /** Pipelines, sent when full, every few milliseconds, and before a checkpoint. */
    private static final class RedisWriter implements SinkWriter<Tuple3<String, byte[], Long>>, ProcessingTimeService.ProcessingTimeCallback {
        private final Results results = new Results();
        private final ProcessingTimeService clock;

        RedisWriter(ProcessingTimeService clock) {
            this.clock = clock;
            onProcessingTime(0);
        }

        @Override
        public void onProcessingTime(long now) {
            flush(false);
            clock.registerTimer(clock.getCurrentProcessingTime() + FLUSH_MS, this);
        }

        @Override
        public void write(Tuple3<String, byte[], Long> result, Context context) {
            results.counted(result.f2);
            results.put(result.f0, result.f1);
        }

        @Override
        public void flush(boolean end) {
            results.counted(Folded.COUNT.getAndSet(0));
            results.flush();
        }

        @Override
        public void close() {}
    }
}
