grep -q '^msr ' /proc/modules || skip 'msr is not there'; undo 'modprobe msr'; rmmod msr; ! grep -q '^msr ' /proc/modules
