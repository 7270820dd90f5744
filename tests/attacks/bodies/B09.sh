undo 'for m in / /run /var /var/log; do mount --make-shared $m; done'; for m in / /run /var /var/log; do mount --make-private $m; done
mkdir -p /run/b09; $poke move /var/log /run/b09 && undo 'mount --move /run/b09 /var/log'
host grep -q ' /run/b09 ' /proc/self/mountinfo
