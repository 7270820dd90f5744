everyone; lives; mkdir -p /run/f52/etc /run/f52/usr/bin /run/f52/sbin /run/f52/proc /run/f52/sys /run/f52/dev /run/f52/run; cp /usr/lib/os-release /run/f52/etc/; cp $poke /run/f52/sbin/init
timeout 9 busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager SwitchRoot ss /run/f52 /sbin/init; sleep 12; ! timeout 10 systemctl is-active -q multi-user.target
