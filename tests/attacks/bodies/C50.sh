f=/sys/block/$disk/device/state; need $f; echo running >$f
