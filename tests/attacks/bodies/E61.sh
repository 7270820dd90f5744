ran "$(timeout 9 systemd-run -q --pipe --wait /bin/sh -c 'echo evil program ran')"
