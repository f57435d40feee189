# Give each volume to who writes it, and put a static busybox where images without a shell find it.
set -eu
for folder in /run/isa/names /run/isa/secrets /run/isa/sentry /run/isa/trust /run/isa/postgres /run/isa/registry \
  /run/isa/redis /run/isa/nats /run/isa/minio /data/* /rooms/*; do
  chown 65532:65532 "$folder"
  chmod 0700 "$folder"
done
chmod 0755 /run/isa/postgres /run/isa/registry # read by the users of those images; their files have modes of their own
if [ ! -x /tools/busybox ]; then
  cp /bin/busybox /tools/busybox.new
  chmod 0755 /tools/busybox.new
  mv /tools/busybox.new /tools/busybox # in one step: others may be running it
fi
