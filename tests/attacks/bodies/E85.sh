undo 'systemctl revert systemd-timesyncd'; systemctl set-property --runtime systemd-timesyncd 'ExecStart=/bin/touch /run/e85' && systemctl show -P ExecStart systemd-timesyncd | grep -q e85
