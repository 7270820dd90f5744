# sh life.sh RESTARTS: a year of a server, in a hurry. A line `== NAME` before each part; exit code 1 where something did not go as it must.
restarts=$1
set -u
bad=0
part() { echo "== $*"; }
must() { "$@" >/tmp/out 2>&1 || { echo "failed ($?): $*"; head -n 5 /tmp/out; bad=1; }; }
# Services of the image that may be restarted at any time; more than five times in ten seconds is only for who says so.
restart() { systemctl reset-failed "$@" 2>/dev/null; must systemctl restart "$@"; }

part "$restarts restarts of services"
i=0
while [ $i -lt "$restarts" ]; do
  # Together: most of a restart's time under emulation is systemctl's own start.
  restart systemd-timesyncd systemd-resolved systemd-networkd ssh systemd-journald systemd-logind
  i=$((i + 6))
done

part "logs rotated and cut, again and again"
for i in 1 2 3 4 5 6 7 8 9 10; do
  head -c 100000 /dev/urandom | base64 | logger -t year
  must journalctl --sync
  must journalctl --rotate
  must journalctl --vacuum-size=8M
done
must journalctl --verify --quiet
must systemctl start systemd-tmpfiles-clean.service

part "the package manager is tried"
for i in 1 2 3; do
  if apt-get install -y hello >/tmp/out 2>&1; then echo "apt-get worked"; bad=1; fi
  cat /tmp/out
done

part "time goes on, a week at a time"
i=0
while [ $i -lt 52 ]; do
  must date -s "@$(($(date +%s) + 7 * 86400))"
  i=$((i + 1))
  sleep 0.2
done
# What timers start then has its time.
sleep 30

part "volumes are full"
for volume in /var /var/log; do
  fallocate -l "$(df --output=avail -B1 $volume | tail -n 1)" $volume/full 2>/dev/null || dd if=/dev/zero of=$volume/full bs=1M 2>/dev/null
  df -h $volume | tail -n 1
  restart systemd-timesyncd systemd-journald ssh
  logger -t year full
  must adamant-agent status
  rm -f $volume/full
done
must journalctl --sync

part "memory is short"
for i in 1 2 3; do
  perl -e 'open F, ">", "/proc/self/oom_score_adj"; print F 1000; close F; my @all; push @all, "x" x (8 << 20) while 1'
  echo "ended with $?"
done
must adamant-agent status
sync
exit $bad
