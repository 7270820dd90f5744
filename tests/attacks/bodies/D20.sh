need /proc/sys/kernel/usermodehelper/bset; cat /proc/sys/kernel/usermodehelper/bset >was; cat was >/proc/sys/kernel/usermodehelper/bset
