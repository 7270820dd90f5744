driver target_core_mod /sys/kernel/config/target
core=/sys/kernel/config/target/core/iblock_0
undo "rmdir $core/attack $core"
mkdir $core $core/attack && echo "udev_path=/dev/$disk" >$core/attack/control
