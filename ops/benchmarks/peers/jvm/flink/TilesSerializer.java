import java.io.IOException;
import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

/** Tiles for checkpoints; without it Flink falls back to Kryo. */
public final class TilesSerializer extends TypeSerializerSingleton<Tiles> {
    public static final TilesSerializer INSTANCE = new TilesSerializer();

    @Override
    public boolean isImmutableType() {
        return false;
    }

    @Override
    public Tiles createInstance() {
        return new Tiles();
    }

    @Override
    public int getLength() {
        return -1;
    }

    @Override
    public Tiles copy(Tiles from) {
        return from.copy();
    }

    @Override
    public Tiles copy(Tiles from, Tiles reuse) {
        return from.copy();
    }

    @Override
    public void serialize(Tiles tiles, DataOutputView out) throws IOException {
        byte[] bytes = tiles.write();
        out.writeInt(bytes.length);
        out.write(bytes);
    }

    @Override
    public Tiles deserialize(DataInputView in) throws IOException {
        byte[] bytes = new byte[in.readInt()];
        in.readFully(bytes);
        return new Tiles().read(bytes);
    }

    @Override
    public Tiles deserialize(Tiles reuse, DataInputView in) throws IOException {
        return deserialize(in);
    }

    @Override
    public void copy(DataInputView in, DataOutputView out) throws IOException {
        int length = in.readInt();
        out.writeInt(length);
        out.write(in, length);
    }

    @Override
    public TypeSerializerSnapshot<Tiles> snapshotConfiguration() {
        return new Snapshot();
    }

    /** What a checkpoint remembers of the serializer. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<Tiles> {
        public Snapshot() {
            super(() -> INSTANCE);
        }
    }
}
