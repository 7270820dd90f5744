absent dummy; undo 'rmmod dummy'; echo dummy >evil.conf; /usr/lib/systemd/systemd-modules-load "$PWD/evil.conf"; became dummy
