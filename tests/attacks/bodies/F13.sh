pid=$(pidof adamant-agent | tr ' ' '\n' | head -n 1); [ -n "$pid" ] || skip 'no agent runs'; kill -KILL "$pid" || exit; gone "$pid"
