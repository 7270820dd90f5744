need /dev/fuse; mkdir fuse; undo 'umount -l fuse'
mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 attack fuse 3<>/dev/fuse
