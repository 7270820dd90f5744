absent dummy; undo 'rmmod dummy'; mkdir rules; echo 'KERNEL=="null", RUN{builtin}+="kmod load dummy"' >rules/99-evil.rules
unshare --mount sh -c 'mount --bind rules /usr/lib/udev/rules.d && { timeout 10 /usr/lib/systemd/systemd-udevd & sleep 2; echo add >/sys/devices/virtual/mem/null/uevent; sleep 4; }'; became dummy
