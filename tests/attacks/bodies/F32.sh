mkdir freezer; mount -t cgroup -o freezer none freezer || skip 'the kernel has none'; undo "echo THAWED >freezer/a/freezer.state; echo 1 >freezer/cgroup.procs; rmdir freezer/a; umount -l freezer"
mkdir freezer/a; echo 1 >freezer/a/cgroup.procs || exit; echo FROZEN >freezer/a/freezer.state && grep -q FRO freezer/a/freezer.state
