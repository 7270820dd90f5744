everyone; lives; mkdir /run/f53 && mount --bind / /run/f53 || exit 1
timeout 9 busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager SwitchRoot ss /run/f53 ''; sleep 12; ! timeout 10 systemctl is-active -q multi-user.target
