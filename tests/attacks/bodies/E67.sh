undo 'rmdir /run/systemd/system.attached /run/e67 2>/dev/null; rm -rf /run/e67 /run/systemd/system.attached; systemctl daemon-reload'; mkdir -p /run/e67; printf '[Service]\nType=oneshot\nExecStart=/bin/touch %s\n' "$mark" >/run/e67/evil67.service
mv -T /run/e67 /run/systemd/system.attached; systemctl daemon-reload; systemctl start evil67; [ -e "$mark" ]
