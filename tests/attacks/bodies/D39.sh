need /sys/power/state; grep -q disk /sys/power/state
