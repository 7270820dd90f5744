need /dev/snapshot; exec 3</dev/snapshot
