agent_process
undo "renice -n 0 -p $pid"; renice -n 19 -p "$pid"
