undo 'systemctl stop srv.mount'; systemd-mount -t tmpfs tmpfs /srv; host grep -q ' /srv ' /proc/self/mountinfo
