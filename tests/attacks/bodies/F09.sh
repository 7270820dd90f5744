everyone
kill -KILL 1; sleep 0.2; [ ! -d /proc/1 ]
