undo 'echo 2 >/proc/sys/kernel/kptr_restrict'; echo 'kernel.kptr_restrict = 0' >evil.conf; /usr/lib/systemd/systemd-sysctl "$PWD/evil.conf"; [ "$(cat /proc/sys/kernel/kptr_restrict)" = 0 ]
