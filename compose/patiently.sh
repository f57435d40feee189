# Run a command until it succeeds, for a minute or so: `docker compose restart` starts the one-shots without waiting for engines.
attempts=30
until "$@"; do
  attempts=$((attempts - 1))
  [ "$attempts" -gt 0 ] || exit 1
  sleep 2
done
