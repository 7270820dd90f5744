everyone; undo 'systemctl revert adamant-watch.service; systemctl daemon-reload'
timeout 9 busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager SetUnitProperties 'sba(sv)' adamant-watch.service true 1 Description s "x
[Service]
WatchdogSec=0"; grep -qs '^WatchdogSec=0' /run/systemd/system.control/adamant-watch.service.d/*
