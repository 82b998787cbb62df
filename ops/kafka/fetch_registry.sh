#!/bin/sh
# fetch_registry.sh DIRECTORY VERSION: the Apicurio schema registry, which speaks Confluent's API, from Maven Central (109 MB).
# Needs Maven to fetch it and a Java 17 to run it with; it installs neither.
set -eu
directory=$1 version=$2

for program in mvn java tar; do
    command -v "$program" >/dev/null || {
        echo "The schema registry for the tests needs '$program', which is not on PATH. On Debian: apt-get install maven openjdk-17-jre-headless" >&2
        exit 3
    }
done
echo "fetching Apicurio registry $version into $directory"
mkdir -p "$directory"
mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact="io.apicurio:apicurio-registry-app:$version:tar.gz:all" -DoutputDirectory="$directory" -Dmdep.useBaseVersion=true
tar -xzf "$directory/apicurio-registry-app-$version-all.tar.gz" -C "$directory"
rm "$directory/apicurio-registry-app-$version-all.tar.gz"
test -f "$directory/apicurio-registry-app-$version-runner.jar"
