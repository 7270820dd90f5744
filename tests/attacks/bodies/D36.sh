need /proc/sysrq-trigger; echo h >/proc/sysrq-trigger
