everyone; pid=$(pgrep -o -x adamant-agent) || skip 'no agent runs'
undo "renice -n 0 -p $pid"; renice -n 19 -p "$pid"
