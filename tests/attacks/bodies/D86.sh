absent veth; undo 'ip link del evil0; rmmod veth'; ip link add evil0 type veth && grep -q '^veth ' /proc/modules
