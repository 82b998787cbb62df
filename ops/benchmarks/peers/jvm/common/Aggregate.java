import java.nio.ByteBuffer;

/** Count, sum, least and most of a stock window. */
public final class Aggregate {
    static final int BYTES = 32;
    public double count, sum, least = Double.POSITIVE_INFINITY, most = Double.NEGATIVE_INFINITY;

    Aggregate add(double amount) {
        count++;
        sum += amount;
        least = Math.min(least, amount);
        most = Math.max(most, amount);
        return this;
    }

    ByteBuffer write(ByteBuffer to) {
        return to.putDouble(count).putDouble(sum).putDouble(least).putDouble(most);
    }

    static Aggregate read(byte[] bytes) {
        ByteBuffer from = ByteBuffer.wrap(bytes);
        Aggregate found = new Aggregate();
        found.count = from.getDouble();
        found.sum = from.getDouble();
        found.least = from.getDouble();
        found.most = from.getDouble();
        return found;
    }
}
