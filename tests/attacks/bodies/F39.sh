everyone; setting /proc/1/timerslack_ns 900000000
