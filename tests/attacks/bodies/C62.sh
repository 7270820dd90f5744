need /sys/class/block/$esp/ro
[ "$(cat /sys/class/block/$esp/ro)" = 0 ]
