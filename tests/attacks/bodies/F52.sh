f=/sys/devices/system/memory/hard_offline_page; need $f; : >>$f
