cgroup_v1
mkdir -p /run/d16; undo 'umount -l /run/d16; rmdir /run/d16'; mount -t cgroup -o none,name=evil cgroup /run/d16 || exit
echo "$PWD/evil" >/run/d16/release_agent && grep -q evil /run/d16/release_agent
