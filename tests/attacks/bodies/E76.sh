undo 'rm -f /run/tmpfiles.d/evil.conf'; mkdir -p /run/tmpfiles.d; printf 'f %s\n' "$mark" >/run/tmpfiles.d/evil.conf; systemd-tmpfiles --create; [ -e "$mark" ]
