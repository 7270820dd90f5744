setting /proc/sys/dev/tty/legacy_tiocsti 1
