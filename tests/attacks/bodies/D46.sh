need /sys/kernel/security/lockdown; echo none >/sys/kernel/security/lockdown; grep -q '\[none\]' /sys/kernel/security/lockdown
