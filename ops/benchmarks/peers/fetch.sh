#!/bin/sh
# fetch.sh PYTHON DIRECTORY [PEER...]: each peer of the stream benchmark in an environment of its own, DIRECTORY/PEER.
# A peer that cannot be installed is named and left out; the benchmark then lists it as skipped. Python peers come from the
# package index; Kafka Streams and Flink need Java 17 with its compiler and Maven.
set -u
python=$1
mkdir -p "$2"
directory=$(cd "$2" && pwd)
shift 2
[ $# -gt 0 ] || set -- bytewax quixstreams pathway kafka-streams flink
here=$(cd "$(dirname "$0")" && pwd)

python_peer() { # NAME REQUIREMENT...
    place=$directory/$1
    shift
    "$python" -m venv "$place" && "$place/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

java_peer() { # NAME
    place=$directory/$1
    for program in mvn javac java; do
        command -v "$program" >/dev/null || { echo "needs '$program', which is not on PATH (Debian: maven, openjdk-17-jdk-headless)" >&2; return 1; }
    done
    mkdir -p "$place"
    mvn --batch-mode --quiet --file "$here/jvm/$1.xml" dependency:copy-dependencies \
        -DoutputDirectory="$place/libs" -DincludeScope=runtime
}

compiled() { # NAME: the programs are ours and may have changed since
    place=$directory/$1
    rm -rf "$place/classes" && mkdir "$place/classes" &&
        javac -nowarn -cp "$place/libs/*" -d "$place/classes" "$here"/jvm/common/*.java "$here/jvm/$1"/*.java && touch "$place/.compiled"
}

fetch() { # NAME
    case $1 in
    bytewax) python_peer bytewax 'bytewax[kafka]==0.21.1' 'fastavro==1.12.1' 'redis[hiredis]==7.1.0' ;;
    quixstreams) python_peer quixstreams 'quixstreams[avro]==3.28.1' 'redis[hiredis]==7.1.0' ;;
    pathway) python_peer pathway 'pathway==0.33.0' 'fastavro==1.12.1' 'redis[hiredis]==7.1.0' ;;
    kafka-streams | flink) java_peer "$1" ;;
    *) echo "no peer is called '$1'" >&2; exit 2 ;;
    esac
}

failed=
for peer in "$@"; do
    if [ ! -f "$directory/$peer/.complete" ]; then
        echo "fetching $peer into $directory/$peer"
        fetch "$peer" && touch "$directory/$peer/.complete" || { failed="$failed $peer"; continue; }
    fi
    case $peer in kafka-streams | flink) compiled "$peer" || failed="$failed $peer" ;; esac
done
[ -z "$failed" ] || echo "not installed, and therefore skipped by the benchmark:$failed" >&2
