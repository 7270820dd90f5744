agent_process
for file in /proc/sys/user/max_mnt_namespaces /proc/sys/user/max_inotify_instances; do
  need $file; undo "echo $(cat $file) >$file"; echo 0 >$file
done
timeout 9 systemctl kill --signal=TERM adamant-watch.service; sleep 6
[ "$(systemctl is-active adamant-watch.service)" != active ]
