undo 'rmmod dummy'; modprobe dummy && grep -q '^dummy ' /proc/modules
