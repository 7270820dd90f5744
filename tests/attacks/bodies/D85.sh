absent dummy; undo 'rmmod dummy'; insmod "$(find "/usr/lib/modules/$(uname -r)/kernel" -name 'dummy.ko*')" && grep -q '^dummy ' /proc/modules
