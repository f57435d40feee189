# Ready when the broker answers ApiVersions (key 18, version 0, correlation 1, no client id) without an error.
exec 3<>/dev/tcp/127.0.0.1/9092 || exit 1
printf '\0\0\0\012\0\022\0\0\0\0\0\001\377\377' >&3
answer=$(timeout 3 head -c 10 <&3 | od -An -v -tx1 | tr -d ' \n')
[ "${answer:8}" = 000000010000 ]
