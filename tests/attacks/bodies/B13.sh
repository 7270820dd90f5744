echo 0 >zero; mount --bind zero /proc/sys/kernel/kptr_restrict && undo 'umount -l /proc/sys/kernel/kptr_restrict'
[ "$(host cat /proc/sys/kernel/kptr_restrict)" = 0 ] && host grep -q kptr_restrict /proc/self/mountinfo
