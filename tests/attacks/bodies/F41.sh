everyone; pid=$(pgrep -o -x adamant-agent) || skip 'no agent runs'
setting "/proc/$pid/oom_score_adj" 900
