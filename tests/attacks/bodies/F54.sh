everyone; need /usr/lib/systemd/system/adamant-watch.service; undo 'systemctl stop f54.scope'
timeout 9 systemd-run -q --scope --unit=f54 -p Conflicts=adamant-watch.service sleep 1; sleep 4; ! timeout 9 systemctl is-active -q adamant-watch.service
