undo 'mount -o remount,bind,nosuid,nodev,noexec /var'; mount -o remount,bind,exec /var
! host sh -c 'grep " /var " /proc/self/mountinfo | grep -q noexec'
