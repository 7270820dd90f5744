printf 'echo evil program ran\n' >script; mkdir m; ran "$(unshare -m sh -c "mount -t overlay -o lowerdir=/usr/bin:/usr/sbin overlay m; exec m/dash script")"
