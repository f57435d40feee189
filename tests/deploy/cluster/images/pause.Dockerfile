# What holds a pod's namespaces.
FROM busybox:1.37.0-musl
ENTRYPOINT ["/bin/sleep", "2147483647"]
