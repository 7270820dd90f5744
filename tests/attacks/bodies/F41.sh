agent_process
setting "/proc/$pid/oom_score_adj" 900
