import java.io.IOException;
import java.io.UncheckedIOException;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;

/**
 * The fields of a payment that its features need: card, time, amount. Decoded field by field, as generated code would do it
 * (a GenericRecord costs more); merchant and device are skipped. One thread.
 */
final class Payment {
    String card;
    long paidAt;
    double amount;

    private static BinaryDecoder decoder;

    static Payment decode(byte[] datum, Payment into) {
        try {
            decoder = DecoderFactory.get().binaryDecoder(datum, decoder);
            into.card = decoder.readString();
            decoder.skipString();
            decoder.skipString();
            into.paidAt = decoder.readLong();
            into.amount = decoder.readDouble();
            return into;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
