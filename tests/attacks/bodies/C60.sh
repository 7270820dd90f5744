driver nvmet /sys/kernel/config/nvmet
sub=/sys/kernel/config/nvmet/subsystems/attack
undo "echo 0 >$sub/namespaces/1/enable; rmdir $sub/namespaces/1 $sub"
mkdir $sub $sub/namespaces/1 && echo "/dev/$disk" >$sub/namespaces/1/device_path
