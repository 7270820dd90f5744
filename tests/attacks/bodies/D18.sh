cgroup_v1
mkdir -p /run/d18; undo 'umount -l /run/d18; rmdir /run/d18'; mount -t cgroup -o none,name=evil3 cgroup /run/d18 || exit
echo /bin/sh >/run/d18/release_agent && grep -q sh /run/d18/release_agent
