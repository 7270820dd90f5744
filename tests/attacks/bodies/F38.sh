everyone; setting /proc/1/oom_score_adj 500
