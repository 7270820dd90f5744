need /usr/lib/systemd/systemd; /usr/lib/systemd/systemd --version | grep -q '^systemd'
