driver nvmet /sys/kernel/config/nvmet; modprobe nvme-loop 2>/dev/null
s=/sys/kernel/config/nvmet/subsystems/evil; undo "rmdir $s/namespaces/1 $s"; mkdir -p $s/namespaces/1 && echo -n "/dev/$disk" >$s/namespaces/1/device_path && undo "echo 0 >$s/namespaces/1/enable" && echo 1 >$s/namespaces/1/enable && [ "$(cat $s/namespaces/1/enable)" = 1 ]
