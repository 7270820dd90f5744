need /usr/lib/systemd/systemd-executor; /usr/lib/systemd/systemd-executor --version
