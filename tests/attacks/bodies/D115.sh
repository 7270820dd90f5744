setting /proc/sys/kernel/softlockup_panic 1
