printf 'echo evil program ran\n' >script; : >cat; ran "$(unshare -m sh -c "mount --bind /bin/dash cat; exec ./cat script")"
