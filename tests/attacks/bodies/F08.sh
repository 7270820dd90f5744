everyone
kill -STOP 1; sleep 0.2; grep -q '^State:.T' /proc/1/status
