# Stand-in for the redis image that Argo CD's release names: arguments alone are the server's.
FROM redis:8.2.2-bookworm
USER 999:999
ENTRYPOINT ["redis-server"]
