echo evil >hosts; chmod 644 hosts
user unshare --user --map-root-user --mount --propagation unchanged mount --bind "$PWD/hosts" /etc/hosts
host grep -q evil /etc/hosts
