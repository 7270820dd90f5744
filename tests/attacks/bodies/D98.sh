absent dummy; undo 'rmmod dummy; rm -f /run/modules-load.d/evil.conf'; mkdir -p /run/modules-load.d; echo dummy >/run/modules-load.d/evil.conf; systemctl restart systemd-modules-load; became dummy
