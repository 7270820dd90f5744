pid=$(pidof adamant-agent | tr ' ' '\n' | head -n 1); [ -n "$pid" ] || skip 'no agent runs'; $poke signal "$pid" 9 || exit; gone "$pid"
