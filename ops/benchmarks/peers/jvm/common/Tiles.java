import java.nio.ByteBuffer;
import java.util.Arrays;

/**
 * One card's state, by hand: per window the tiles that are not empty, oldest first, each count, sum, least and most. A window of
 * length W on tiles of g covers the tiles floor((t - W) / g) ... floor(t / g) of the newest event's time t: the definition of
 * docs/windows.md. Tiles beyond the far edge are dropped; a late event lands in its tile while that is kept.
 */
public final class Tiles {
    private static final int PARTS = 4;
    private static final int WINDOWS = Workload.WINDOWS.length;
    long newest = Long.MIN_VALUE;
    /** Events since the features were written last; not a part of the state. */
    long waiting;
    private final int[] held = new int[WINDOWS];
    private final long[][] tile = new long[WINDOWS][2];
    private final double[][] part = new double[WINDOWS][2 * PARTS];

    void add(long time, double amount) {
        newest = Math.max(newest, time);
        for (int w = 0; w < WINDOWS; w++) {
            long g = Workload.TILES[w];
            long mine = Math.floorDiv(time, g);
            long oldest = Math.floorDiv(newest - Workload.WINDOWS[w], g);
            if (mine < oldest) continue;
            drop(w, oldest);
            fold(w, mine, amount);
        }
    }

    private void drop(int w, long oldest) {
        int gone = 0;
        while (gone < held[w] && tile[w][gone] < oldest) gone++;
        if (gone == 0) return;
        held[w] -= gone;
        System.arraycopy(tile[w], gone, tile[w], 0, held[w]);
        System.arraycopy(part[w], gone * PARTS, part[w], 0, held[w] * PARTS);
    }

    private void fold(int w, long mine, double amount) {
        int at = held[w] - 1;
        while (at >= 0 && tile[w][at] > mine) at--;
        if (at < 0 || tile[w][at] != mine) insert(w, ++at, mine);
        double[] parts = part[w];
        int p = at * PARTS;
        parts[p]++;
        parts[p + 1] += amount;
        parts[p + 2] = Math.min(parts[p + 2], amount);
        parts[p + 3] = Math.max(parts[p + 3], amount);
    }

    private void insert(int w, int at, long mine) {
        int n = held[w];
        if (n == tile[w].length) {
            tile[w] = Arrays.copyOf(tile[w], n + n / 2 + 1);
            part[w] = Arrays.copyOf(part[w], tile[w].length * PARTS);
        }
        System.arraycopy(tile[w], at, tile[w], at + 1, n - at);
        System.arraycopy(part[w], at * PARTS, part[w], (at + 1) * PARTS, (n - at) * PARTS);
        tile[w][at] = mine;
        int p = at * PARTS;
        part[w][p] = part[w][p + 1] = 0;
        part[w][p + 2] = Double.POSITIVE_INFINITY;
        part[w][p + 3] = Double.NEGATIVE_INFINITY;
        held[w] = n + 1;
    }

    /** The features: the newest event's time, then count, sum, least and most of each window. */
    byte[] features() {
        ByteBuffer out = ByteBuffer.allocate(8 + WINDOWS * PARTS * 8).putLong(newest);
        for (int w = 0; w < WINDOWS; w++) {
            double count = 0, sum = 0, least = Double.POSITIVE_INFINITY, most = Double.NEGATIVE_INFINITY;
            double[] parts = part[w];
            for (int p = 0, end = held[w] * PARTS; p < end; p += PARTS) {
                count += parts[p];
                sum += parts[p + 1];
                least = Math.min(least, parts[p + 2]);
                most = Math.max(most, parts[p + 3]);
            }
            out.putDouble(count).putDouble(sum).putDouble(least).putDouble(most);
        }
        return out.array();
    }

    byte[] write() {
        int bytes = 8 + WINDOWS * 4;
        for (int w = 0; w < WINDOWS; w++) bytes += held[w] * (8 + PARTS * 8);
        ByteBuffer to = ByteBuffer.allocate(bytes).putLong(newest);
        for (int w = 0; w < WINDOWS; w++) {
            to.putInt(held[w]);
            for (int i = 0; i < held[w]; i++) {
                to.putLong(tile[w][i]);
                for (int p = i * PARTS; p < (i + 1) * PARTS; p++) to.putDouble(part[w][p]);
            }
        }
        return to.array();
    }

    /** Takes over a state; null is that of a card without events. */
    Tiles read(byte[] state) {
        if (state == null) {
            newest = Long.MIN_VALUE;
            Arrays.fill(held, 0);
            return this;
        }
        ByteBuffer from = ByteBuffer.wrap(state);
        newest = from.getLong();
        for (int w = 0; w < WINDOWS; w++) {
            int n = held[w] = from.getInt();
            if (tile[w].length < n) {
                tile[w] = new long[n + 1];
                part[w] = new double[(n + 1) * PARTS];
            }
            for (int i = 0; i < n; i++) {
                tile[w][i] = from.getLong();
                for (int p = i * PARTS; p < (i + 1) * PARTS; p++) part[w][p] = from.getDouble();
            }
        }
        return this;
    }

    Tiles copy() {
        Tiles other = new Tiles();
        other.newest = newest;
        other.waiting = waiting;
        for (int w = 0; w < WINDOWS; w++) {
            other.held[w] = held[w];
            other.tile[w] = Arrays.copyOf(tile[w], held[w] + 1);
            other.part[w] = Arrays.copyOf(part[w], (held[w] + 1) * PARTS);
        }
        return other;
    }
}
