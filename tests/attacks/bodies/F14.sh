pid=$(pidof adamant-agent | tr ' ' '\n' | head -n 1); [ -n "$pid" ] || skip 'no agent runs'; undo "kill -CONT $pid"; kill -STOP "$pid"; sleep 0.2; grep -q '^State:.T' "/proc/$pid/status"
