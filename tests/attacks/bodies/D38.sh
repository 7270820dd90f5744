need /sys/power/resume; v=$(cat "/sys/class/block/$var/dev"); setting /sys/power/resume "$v"
