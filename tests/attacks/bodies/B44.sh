d=/run/initramfs; [ ! -e $d ] || skip "there is $d already"; undo "umount -l $d; rmdir $d"
mkdir $d && mount --bind / $d && host mountpoint -q $d
