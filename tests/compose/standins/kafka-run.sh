#!/bin/sh
# What the image's run script does: make the configuration from the environment, format once, serve.
set -eu
logging="-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
if ! said=$(java $logging -XX:TieredStopAtLevel=1 -cp '/opt/kafka/libs/*' kafka.docker.KafkaDockerWrapper setup \
  --default-configs-dir /etc/kafka/docker --mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config 2>&1)
then
  echo "$said"
  echo "$said" | grep -qi "already formatted"
fi
exec java ${KAFKA_HEAP_OPTS:-} $logging -cp '/opt/kafka/libs/*' kafka.Kafka /opt/kafka/config/server.properties
