absent dummy; undo 'rmmod dummy'; udevadm test-builtin 'kmod load dummy' /sys/class/net/lo; became dummy
