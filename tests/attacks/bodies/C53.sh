f=/sys/fs/ext4/$var/trigger_fs_error; need $f; : >>$f
