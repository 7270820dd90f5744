cd /tmp && mkdir -p units /run/systemd/system 2>/dev/null; undo 'rm -rf /tmp/units'; cp -a /run/systemd/system/. units/ 2>/dev/null; printf '[Service]\nType=oneshot\nExecStart=/bin/touch %s\n' "$mark" >units/evil66.service
undo 'umount -l /run/systemd/system; systemctl daemon-reload'; mount --bind units /run/systemd/system; systemctl daemon-reload; systemctl start evil66; [ -e "$mark" ]
