everyone; need /usr/lib/systemd/system/adamant-watch.service; p=$(systemctl show -P MainPID adamant-watch.service); [ "${p:-0}" != 0 ] || skip 'the watch does not run'; undo "systemctl kill -s CONT adamant-watch.service"
timeout 9 systemctl kill -s STOP adamant-watch.service; sleep 1; grep -q '^State:.T' /proc/$p/status
