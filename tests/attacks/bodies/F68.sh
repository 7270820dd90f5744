everyone; need /usr/bin/adamant-agent; mkdir run && cp /run/adamant/boot.json run/
systemd-run --scope -q --unit=adamant-aaaaaaaaaaaaaaaaaaaaaaa.service.scope \
  unshare --mount --propagation private sh -c 'mount --bind run /run/adamant && exec timeout 12 adamant-agent watch' >log 2>&1 &
for n in 1 2 3 4 5 6; do sleep 1; echo "|/bin/true" >/proc/sys/kernel/core_pattern; done
grep -o 'system.slice.*' /proc/self/cgroup; cat log; grep -q '"hook"' run/events.jsonl
