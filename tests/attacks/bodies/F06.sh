everyone
pid=$(systemctl show -P MainPID systemd-journald); $poke trace "$pid"
