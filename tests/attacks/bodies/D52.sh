setting /proc/sys/fs/protected_symlinks 0 && setting /proc/sys/fs/protected_hardlinks 0
