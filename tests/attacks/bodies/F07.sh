everyone
pid=$(systemctl show -P MainPID systemd-journald); $poke vm-write "$pid"
