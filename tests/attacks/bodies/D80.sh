need /sys/kernel/security/apparmor/.replace; exec 3>/sys/kernel/security/apparmor/.replace
