undo 'mount -o remount,bind,noexec /var'; mount -o remount,bind,exec /var; printf '#!/bin/sh\ntouch %s\n' "$mark" >evil; chmod 755 evil; chmod 777 .
setting /proc/sys/kernel/modprobe "$PWD/evil"; printf '\377\376\375\374' >unknown; chmod 755 unknown; ./unknown; sleep 1; [ -e "$mark" ]
