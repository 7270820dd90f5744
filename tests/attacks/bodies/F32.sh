# Not below the attack's own directory: the guard refuses mounts on a volume.
grep -q '^freezer[[:space:]]' /proc/cgroups || skip 'the kernel has none'
f=/run/f32; mkdir -p $f; mount -t cgroup -o freezer none $f || exit; undo "echo THAWED >$f/a/freezer.state; echo 1 >$f/cgroup.procs; rmdir $f/a; umount -l $f; rmdir $f"
mkdir $f/a; echo 1 >$f/a/cgroup.procs || exit; echo FROZEN >$f/a/freezer.state && grep -q FRO $f/a/freezer.state
