#!/bin/sh
# fetch.sh DIRECTORY VERSION: Apache Kafka's jars in DIRECTORY/libs, from Maven Central (43 MB).
# Needs Maven and a Java 17 to run the broker with; it installs neither.
set -eu
directory=$1 version=$2

for program in mvn java; do
    command -v "$program" >/dev/null || {
        echo "Apache Kafka for the tests needs '$program', which is not on PATH. On Debian: apt-get install maven openjdk-17-jre-headless" >&2
        exit 3
    }
done
echo "fetching Apache Kafka $version into $directory"
mkdir -p "$directory"
mvn --batch-mode --quiet --file "$(dirname "$0")/pom.xml" -Dkafka.version="$version" \
    dependency:copy-dependencies -DoutputDirectory="$(cd "$directory" && pwd)/libs" -DincludeScope=runtime
test -f "$directory/libs/kafka_2.13-$version.jar"
