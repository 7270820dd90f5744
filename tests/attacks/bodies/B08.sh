undo 'for m in / /run /var /var/log; do mount --make-shared $m; done'; for m in / /run /var /var/log; do mount --make-private $m; done
mkdir -p /run/b08; mount --move /var/log /run/b08 && undo 'mount --move /run/b08 /var/log'
host grep -q ' /run/b08 ' /proc/self/mountinfo
