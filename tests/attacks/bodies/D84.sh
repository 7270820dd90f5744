absent dummy; undo 'rmmod dummy'; modprobe dummy numdummies=3 && grep -q '^dummy ' /proc/modules
